//! Card numbers that only a key opens: sealed in the outbox, in dead letters and on a broker, and
//! masked where operators look.
//!
//! ```text
//! stored: sealed with key `2026-11`, without the card
//! charged the card that ends in 1111
//! a stranger's message: not_sealed
//! after the keys changed: charged the card that ends in 2222
//! ```

use sagabus::admin::{Page, RowFilter, StoreAdmin};
use sagabus::prelude::*;
use sagabus::{Keyring, Protection, Redaction, headers};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Asks for money, from a card that is nobody else's business.
#[derive(Command, Serialize, Deserialize)]
#[message("payments.charge-card")]
struct ChargeCard {
    card: String,
    cents: i64,
}

async fn charge(command: ChargeCard, charged: State<mpsc::Sender<String>>) -> Result {
    // The handler has what was sent: it was opened before it came here.
    charged.send(command.card[12..].to_owned()).await?;
    Ok(())
}

/// The service's own keys. Real ones come from a secret store, never from the code.
fn keys(text: &str) -> anyhow::Result<Keyring> {
    Ok(Keyring::parse(text)?)
}

const FIRST: &str = "2026-11 9f1c0d6a5b7e48302f1d6c9a8b7e5f4032211f0e9d8c7b6a5948372615f4e3d2";
const SECOND: &str = "2027-05 00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn payments(
    store: &SqliteStore,
    keys: Keyring,
    charged: &mpsc::Sender<String>,
) -> anyhow::Result<Host> {
    let host = Host::builder("payments")
        .store(store.clone())
        .state(charged.clone())
        // Sent sealed, and taken only sealed.
        .protects(keys, Protection::Required)
        // Whoever opens one in the command line does not see the card.
        .redacts::<ChargeCard>(Redaction::fields(["/card"]))
        .endpoint("payments", |e| e.handle(charge))
        .build()?;
    Ok(host)
}

/// Describes the one message that the outbox holds.
async fn stored(store: &SqliteStore) -> anyhow::Result<String> {
    let rows = store.rows(&RowFilter::default(), Page::latest(1)).await?;
    let envelope = &rows[0].envelope;
    let key = envelope.headers.get(headers::SEALED).unwrap_or("none");
    let is_plain = String::from_utf8_lossy(&envelope.body).contains("4111");
    let with = if is_plain { "with" } else { "without" };
    Ok(format!("sealed with key `{key}`, {with} the card"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-sealed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("payments.db")).await?;
    store.migrate().await?;
    let (sender, mut charged) = mpsc::channel(10);
    let card = |number: &str| ChargeCard {
        card: number.to_owned(),
        cents: 500,
    };

    let host = payments(&store, keys(FIRST)?, &sender)?.start().await?;
    let bus = host.bus();
    bus.schedule(1.secs(), card("4111111111111111")).await?;
    println!("stored: {}", stored(&store).await?);
    let last = charged.recv().await.expect("the host has a sender");
    println!("charged the card that ends in {last}");

    // A process without keys cannot make a message that is taken.
    let stranger = Host::builder("stranger").store(store.clone()).build()?;
    let stranger = stranger.start().await?;
    stranger.bus().send(card("4999999999999999")).await?;
    let dead = loop {
        if let Some(dead) = store.dead_letters(1).await?.pop() {
            break dead;
        }
        tokio::time::sleep(20.millis()).await;
    };
    println!("a stranger's message: {}", dead.reason);
    stranger.stop(5.secs()).await;

    // New keys: the first line seals, the second still opens what waits.
    bus.schedule(300.millis(), card("4222222222222222")).await?;
    host.stop(5.secs()).await;
    let both = keys(&format!("{SECOND}\n{FIRST}"))?;
    let host = payments(&store, both, &sender)?.start().await?;
    let last = charged.recv().await.expect("the host has a sender");
    println!("after the keys changed: charged the card that ends in {last}");

    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
