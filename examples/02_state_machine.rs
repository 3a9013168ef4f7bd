//! A state machine: one turnstile per gate, moved by coins and by time.
//!
//! ```text
//! north opened, 1 coin(s)
//! north locked, 1 coin(s)
//! north opened, 2 coin(s)
//! north closed, 2 coin(s)
//! ```

use sagabus::memory::MemoryStore;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Serialize, Deserialize)]
#[message("gate.insert-coin", correlate(Turnstile = 0))]
struct InsertCoin(String);

#[derive(Event, Serialize, Deserialize)]
#[message("gate.waited-too-long", correlate(Turnstile = 0))]
struct WaitedTooLong(String);

#[derive(Command, Serialize, Deserialize)]
#[message("gate.close", correlate(Turnstile = 0))]
struct Close(String);

#[derive(Event, Serialize, Deserialize)]
#[message("gate.moved")]
struct Moved(String);

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = String, state = Stage)]
struct Turnstile {
    gate: String,
    coins: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Open,
    Locked,
}

fn turnstile() -> StateMachine<Turnstile> {
    let moved = |t: &Turnstile, what| Moved(format!("{} {what}, {} coin(s)", t.gate, t.coins));
    let first = |m: &InsertCoin| Turnstile {
        gate: m.0.clone(),
        coins: 1,
    };
    let open = Turnstile::when::<InsertCoin>()
        .init(first)
        .schedule("lock", 50.millis(), |t, _| WaitedTooLong(t.gate.clone()))
        .publish(move |t, _| moved(t, "opened"))
        .transition_to(Stage::Open);
    let lock = Turnstile::when::<WaitedTooLong>()
        .publish(move |t, _| moved(t, "locked"))
        .transition_to(Stage::Locked);
    let open_again = Turnstile::when::<InsertCoin>()
        .then(|t, _| t.coins += 1)
        .publish(move |t, _| moved(t, "opened"))
        .transition_to(Stage::Open);
    let close = Turnstile::when::<Close>()
        .publish(move |t, _| moved(t, "closed"))
        .finalize();
    StateMachine::named("turnstile")
        .initially(open)
        .during(Stage::Open, lock)
        .during(Stage::Locked, open_again)
        .during_any(close)
}

async fn show(event: Moved, seen: State<mpsc::Sender<String>>) -> Result {
    println!("{}", event.0);
    seen.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (sender, mut seen) = mpsc::channel::<String>(8);
    let host = Host::builder("gates")
        .store(MemoryStore::new())
        .state(sender)
        .endpoint("gates", |e| e.machine(turnstile()))
        .endpoint("show", |e| e.handle(show))
        .build()?;
    let host = host.start().await?;
    let mut next = async || seen.recv().await.unwrap_or_default();
    host.bus().send(InsertCoin("north".to_owned())).await?;
    assert_eq!(next().await, "north opened, 1 coin(s)");
    assert_eq!(next().await, "north locked, 1 coin(s)"); // By itself, after 50 ms.
    host.bus().send(InsertCoin("north".to_owned())).await?;
    assert_eq!(next().await, "north opened, 2 coin(s)");
    host.bus().send(Close("north".to_owned())).await?;
    assert_eq!(next().await, "north closed, 2 coin(s)");
    host.stop(5.secs()).await;
    Ok(())
}
