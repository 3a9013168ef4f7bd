//! A carrier that takes no order id: who calls twice gets two vans. So that it is called is written
//! down before it is called, and where that was not the end of it, a person decides.
//!
//! ```text
//! books: van 1 comes
//! glass: in doubt, a person asks the carrier
//! glass: van 2 comes
//! lamps: in doubt, a person asks the carrier
//! lamps: van 3 comes
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use tokio::sync::mpsc;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("shipping.ship", correlate(Shipment = goods))]
struct Ship {
    goods: String,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("carrier.call")]
struct CallCarrier {
    goods: String,
    call: u32,
}

#[derive(Message, Clone, Serialize, Deserialize)]
#[message("carrier.van-comes")]
struct VanComes {
    van: u32,
}

/// What a person found out: the van that comes, or that none does.
#[derive(Command, Clone, Serialize, Deserialize)]
#[message("shipping.decide", correlate(Shipment = goods))]
struct Decide {
    goods: String,
    van: Option<u32>,
}

#[derive(Event, Serialize, Deserialize)]
#[message("shipping.told")]
struct Told(String);

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = String, state = Stage)]
struct Shipment {
    goods: String,
    calls: u32,
}

impl Shipment {
    fn call(&self) -> CallCarrier {
        CallCarrier {
            goods: self.goods.clone(),
            call: self.calls,
        }
    }

    fn van_comes(&self, van: u32) -> Told {
        Told(format!("{}: van {van} comes", self.goods))
    }

    fn in_doubt(&self) -> Told {
        let goods = &self.goods;
        Told(format!("{goods}: in doubt, a person asks the carrier"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Calling,
    InDoubt,
}

fn shipments() -> StateMachine<Shipment> {
    let patience = 30.secs();
    let ship = Shipment::when::<Ship>()
        .init(|m| Shipment {
            goods: m.goods.clone(),
            calls: 1,
        })
        .ask("carrier", patience, |s, _| s.call())
        .transition_to(Stage::Calling);
    let done = Shipment::when_answered::<VanComes>("carrier")
        .publish(|s, m| s.van_comes(m.van))
        .finalize();
    let failed = Shipment::when_failed("carrier")
        .publish(|s, _| s.in_doubt())
        .transition_to(Stage::InDoubt);
    let silent = Shipment::when_timed_out("carrier")
        .publish(|s, _| s.in_doubt())
        .transition_to(Stage::InDoubt);
    let a_van_comes = Shipment::when_if::<Decide>(|_, m| m.van.is_some())
        .publish(|s, m| s.van_comes(m.van.unwrap_or_default()))
        .finalize();
    let no_van_comes = Shipment::when_else::<Decide>()
        .then(|s, _| s.calls += 1)
        .ask("carrier", patience, |s, _| s.call())
        .transition_to(Stage::Calling);
    StateMachine::named("shipment")
        .initially(ship)
        .during(Stage::Calling, done)
        .during(Stage::Calling, failed)
        .during(Stage::Calling, silent)
        .during(Stage::InDoubt, a_van_comes)
        .during(Stage::InDoubt, no_van_comes)
}

/// The carrier: its line breaks after it took the call for glass, and before that for lamps.
#[derive(Default)]
struct Carrier {
    vans: AtomicU32,
    calls: AtomicU32,
}

impl Carrier {
    async fn call(&self, goods: &str) -> anyhow::Result<u32> {
        let is_first = self.calls.fetch_add(1, Ordering::SeqCst) < 3;
        anyhow::ensure!(goods != "lamps" || !is_first, "the line is broken");
        let van = self.vans.fetch_add(1, Ordering::SeqCst) + 1;
        anyhow::ensure!(goods != "glass", "the line is broken");
        Ok(van)
    }
}

async fn call_carrier(
    command: CallCarrier,
    calls: State<SqlitePool>,
    carrier: State<Carrier>,
) -> Result<VanComes> {
    // In a transaction of its own, which is over before the carrier is called.
    let started = sqlx::query("insert or ignore into carrier_call (goods, call) values (?, ?)")
        .bind(&command.goods)
        .bind(command.call)
        .execute(&*calls)
        .await?;
    if started.rows_affected() == 0 {
        let doubt = HandlerError::new("was called before; whether a van comes is not known");
        return Err(doubt.terminal());
    }
    let van = carrier.call(&command.goods).await?;
    Ok(VanComes { van })
}

async fn tell(event: Told, told: State<mpsc::Sender<String>>) -> Result {
    told.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-logistics-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("shop.db");
    let store = SqliteStore::open(&file).await?;
    store.migrate().await?;
    let calls = SqlitePool::connect(&format!("sqlite://{}", file.display())).await?;
    let table = "create table carrier_call (goods text, call integer, primary key (goods, call))";
    sqlx::query(table).execute(&calls).await?;
    let (sender, mut told) = mpsc::channel::<String>(8);
    let host = Host::builder("shop")
        .store(store)
        .state(sender)
        .state(calls.clone())
        .state(Carrier::default())
        .endpoint("shipments", |e| e.machine(shipments()))
        .endpoint("carrier", |e| e.handle(call_carrier))
        .endpoint("told", |e| e.handle(tell))
        .build()?;
    let carrier = host.state::<Carrier>();
    let host = host.start().await?;

    // What the person finds out, where they have to ask.
    for (goods, van) in [("books", None), ("glass", Some(2)), ("lamps", None)] {
        let goods = goods.to_owned();
        let ship = Ship {
            goods: goods.clone(),
        };
        host.bus().send(ship).await?;
        while let Some(line) = told.recv().await {
            println!("{line}");
            if line.ends_with("comes") {
                break;
            }
            let goods = goods.clone();
            host.bus().send(Decide { goods, van }).await?;
        }
    }
    let vans = carrier.map_or(0, |carrier| carrier.vans.load(Ordering::SeqCst));
    assert_eq!(vans, 3, "one for each shipment");

    host.stop(5.secs()).await;
    calls.close().await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
