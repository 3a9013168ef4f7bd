//! Sixty-four transfers at once from one account that has money for half of them: nobody is
//! overdrawn, and no money is lost or made.
//!
//! ```text
//! 32 transfers refused, Ada has 0 cents and Bob 3200
//! ```

use anyhow::Context;
use sagabus::InstanceId;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const TRANSFERS: u32 = 64;
const CENTS: i64 = 100;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("bank.open", correlate(Account = name))]
struct Open {
    name: String,
    cents: i64,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("bank.transfer", correlate(Account = from))]
struct Transfer {
    from: String,
    to: String,
    cents: i64,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("bank.credit", correlate(Account = name))]
struct Credit {
    name: String,
    cents: i64,
}

/// The account after a transfer was refused or money has come.
#[derive(Event, Serialize, Deserialize)]
#[message("bank.told")]
struct Told {
    name: String,
    cents: i64,
    was_refused: bool,
}

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = String, state = Stage)]
struct Account {
    name: String,
    cents: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Opened,
}

fn accounts() -> StateMachine<Account> {
    let told = |account: &Account, was_refused| Told {
        name: account.name.clone(),
        cents: account.cents,
        was_refused,
    };
    StateMachine::named("account")
        .endless()
        .initially(
            Account::when::<Open>()
                .init(|m| Account {
                    name: m.name.clone(),
                    cents: m.cents,
                })
                .transition_to(Stage::Opened),
        )
        .during(
            Stage::Opened,
            Account::when_if::<Transfer>(|account, m| account.cents >= m.cents)
                .then(|account, m| account.cents -= m.cents)
                .send(|_, m| Credit {
                    name: m.to.clone(),
                    cents: m.cents,
                })
                .stay(),
        )
        .during(
            Stage::Opened,
            Account::when_else::<Transfer>()
                .publish(move |account, _| told(account, true))
                .stay(),
        )
        .during(
            Stage::Opened,
            Account::when::<Credit>()
                .then(|account, m| account.cents += m.cents)
                .publish(move |account, _| told(account, false))
                .stay(),
        )
}

async fn note(event: Told, seen: State<mpsc::Sender<Told>>) -> Result {
    seen.send(event).await?;
    Ok(())
}

/// Reads what is stored of an account.
async fn cents_of(store: &SqliteStore, name: &str) -> anyhow::Result<i64> {
    let id = InstanceId {
        kind: "account".into(),
        key: name.into(),
    };
    let stored = store.instance(&id).await?.context("no such account")?;
    let account: Account = serde_json::from_slice(&stored.data)?;
    Ok(account.cents)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-bank-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("bank.db")).await?;
    store.migrate().await?;
    let (sender, mut seen) = mpsc::channel::<Told>(64);
    let host = Host::builder("bank")
        .store(store.clone())
        .state(sender)
        .endpoint("accounts", |e| e.machine(accounts()))
        .endpoint("notes", |e| e.handle(note))
        .build()?;
    let host = host.start().await?;
    let bus = host.bus();
    let rich = i64::from(TRANSFERS / 2) * CENTS;
    for (name, cents) in [("Ada", rich), ("Bob", 0)] {
        let name = name.to_owned();
        bus.send(Open { name, cents }).await?;
    }
    let transfers = (0..TRANSFERS).map(|_| {
        let transfer = Transfer {
            from: "Ada".to_owned(),
            to: "Bob".to_owned(),
            cents: CENTS,
        };
        let bus = bus.clone();
        async move { bus.send(transfer).await }
    });
    futures_util::future::try_join_all(transfers).await?;
    let (mut refused, mut bob) = (0, 0);
    for _ in 0..TRANSFERS {
        let Some(told) = seen.recv().await else { break };
        assert!(told.cents >= 0, "{} is overdrawn", told.name);
        if told.was_refused {
            refused += 1;
        } else {
            bob = bob.max(told.cents);
        }
    }
    let ada = cents_of(&store, "Ada").await?;
    println!("{refused} transfers refused, Ada has {ada} cents and Bob {bob}");
    assert_eq!((refused, ada, bob), (TRANSFERS / 2, 0, rich));
    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
