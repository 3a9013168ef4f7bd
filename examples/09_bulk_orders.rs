//! Bulk orders: many at once, handled in parallel, and joined again. One that is never settled
//! holds up its bulk until the deadline, not for ever.
//!
//! ```text
//! bulk 1: 60 orders, 57 placed, sold out: 7, 17, 27
//! bulk 2: 20 orders, 17 placed, sold out: 7, 17, not settled: 1
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("shop.place-bulk", correlate(Bulk = bulk))]
struct PlaceBulk {
    bulk: u32,
    orders: u32,
}

#[derive(Command, Serialize, Deserialize)]
#[message("shop.place-order")]
struct PlaceOrder {
    bulk: u32,
    number: u32,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("shop.order-settled", correlate(Bulk = bulk))]
struct OrderSettled {
    bulk: u32,
    number: u32,
    is_placed: bool,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("shop.bulk-deadline", correlate(Bulk = bulk))]
struct DeadlineCame {
    bulk: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[message("shop.bulk-done")]
struct BulkDone(Bulk);

#[derive(Clone, Serialize, Deserialize, Saga)]
#[saga(key = u32, state = Stage)]
struct Bulk {
    bulk: u32,
    orders: u32,
    placed: u32,
    sold_out: Vec<u32>,
}

impl Bulk {
    fn open(&self) -> usize {
        self.orders as usize - self.placed as usize - self.sold_out.len()
    }

    fn settle(&mut self, order: &OrderSettled) {
        if order.is_placed {
            self.placed += 1;
        } else {
            self.sold_out.push(order.number);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Placing,
}

fn bulks() -> StateMachine<Bulk> {
    let split = Bulk::when::<PlaceBulk>()
        .init(|m| Bulk {
            bulk: m.bulk,
            orders: m.orders,
            placed: 0,
            sold_out: Vec::new(),
        })
        .send_each(|b, _| {
            let bulk = b.bulk;
            let orders = (1..=b.orders).map(|number| PlaceOrder { bulk, number });
            orders.collect()
        })
        .schedule("deadline", 5.secs(), |b, _| DeadlineCame { bulk: b.bulk })
        .transition_to(Stage::Placing);
    let join = Bulk::when_if::<OrderSettled>(|b, _| b.open() == 1)
        .then(|b, m| b.settle(m))
        .publish(|b, _| BulkDone(b.clone()))
        .finalize();
    let one = Bulk::when_else::<OrderSettled>()
        .then(|b, m| b.settle(m))
        .stay();
    let too_late = Bulk::when::<DeadlineCame>()
        .publish(|b, _| BulkDone(b.clone()))
        .finalize();
    StateMachine::named("bulk")
        .initially(split)
        .during(Stage::Placing, join)
        .during(Stage::Placing, one)
        .during(Stage::Placing, too_late)
}

/// How many orders are being placed, and the most there were.
#[derive(Default)]
struct Desk {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Takes a moment; order 13 of bulk 2 is one that nobody can read.
async fn place_order(command: PlaceOrder, desk: State<Desk>) -> Result<OrderSettled> {
    let now = desk.now.fetch_add(1, Ordering::SeqCst) + 1;
    desk.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(20.millis()).await;
    desk.now.fetch_sub(1, Ordering::SeqCst);
    let PlaceOrder { bulk, number } = command;
    if (bulk, number) == (2, 13) {
        return Err(HandlerError::new("nobody can read this order").terminal());
    }
    Ok(OrderSettled {
        bulk,
        number,
        is_placed: number > 30 || number % 10 != 7,
    })
}

async fn tell(event: BulkDone, told: State<mpsc::Sender<Bulk>>) -> Result {
    told.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-bulk-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("shop.db")).await?;
    store.migrate().await?;
    let (sender, mut told) = mpsc::channel::<Bulk>(1);
    let host = Host::builder("shop")
        .store(store)
        .state(sender)
        .state(Desk::default())
        .endpoint("bulks", |e| e.machine(bulks()))
        .endpoint("orders", |e| e.handle(place_order))
        .endpoint("told", |e| e.handle(tell))
        .build()?;
    let desk = host.state::<Desk>();
    let host = host.start().await?;

    for (bulk, orders) in [(1, 60), (2, 20)] {
        host.bus().send(PlaceBulk { bulk, orders }).await?;
        let Some(mut done) = told.recv().await else {
            break;
        };
        done.sold_out.sort_unstable();
        let sold_out: Vec<_> = done.sold_out.iter().map(u32::to_string).collect();
        let (placed, sold_out) = (done.placed, sold_out.join(", "));
        print!("bulk {bulk}: {orders} orders, {placed} placed, sold out: {sold_out}");
        match done.open() {
            0 => println!(),
            open => println!(", not settled: {open}"),
        }
    }
    let most = desk.map_or(0, |desk| desk.most.load(Ordering::SeqCst));
    assert!(most > 1, "orders were placed one after the other");

    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
