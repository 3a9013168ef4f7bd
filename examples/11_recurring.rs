//! A report that recurs, declared by two processes of one service: each time is fired once.
//!
//! Real reports come at six in the morning; this one comes every second, so that it can be watched.
//!
//! ```text
//! report 1
//! report 2
//! report 3
//! no report came twice
//! ```

use std::collections::HashSet;

use sagabus::Timestamp;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Asks for the report on what lies before a time.
#[derive(Command, Serialize, Deserialize)]
#[message("reports.make-report")]
struct MakeReport {
    until: Timestamp,
}

async fn make_report(command: MakeReport, made: State<mpsc::Sender<Timestamp>>) -> Result {
    made.send(command.until).await?;
    Ok(())
}

/// One process of the service: both have the same endpoints and declare the same.
fn service(store: SqliteStore, made: mpsc::Sender<Timestamp>) -> anyhow::Result<Host> {
    // For a daily one: cron("0 6 * * *").in_zone("Europe/Berlin")
    let often = cron("* * * * * *");
    let host = Host::builder("reports")
        .store(store)
        .state(made)
        .endpoint("reports", |e| e.handle(make_report))
        .recurring("report", often, |until| MakeReport { until })
        .build()?;
    Ok(host)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-recurring-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("reports.db")).await?;
    store.migrate().await?;
    let (sender, mut made) = mpsc::channel(100);
    let first = service(store.clone(), sender.clone())?.start().await?;
    let second = service(store, sender)?.start().await?;

    let mut times = HashSet::new();
    for n in 1..=3 {
        let until = made.recv().await.expect("both hosts have a sender");
        println!("report {n}");
        assert!(times.insert(until), "{until} came twice");
    }
    println!("no report came twice");

    first.stop(5.secs()).await;
    second.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
