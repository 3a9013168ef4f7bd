//! The run without a page: place, die, come back, until every order has ended; or serve the others
//! until told to stop.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use crate::demo::{Demo, kill_this_process, told_to_stop};
use crate::ledger::Ledger;
use crate::print_ledger;

/// Orders under way at a time. More would only wait in line, and run into the payment deadline.
const UNDER_WAY_MAX: i64 = 200;

/// How often it looks whether there is room for more.
const PACE: Duration = Duration::from_millis(50);

/// How often a service looks for messages that stopped being tried.
const LOOK: Duration = Duration::from_secs(1);

/// Places the missing orders of `1..=total`, waits until all have ended, prints the ledger.
///
/// # Errors
/// When the database refuses, or a message stopped being tried, so that its order cannot end.
pub(crate) async fn run(demo: Demo, total: i64) -> Result<ExitCode> {
    let has_ended = tokio::select! {
        served = place_all(&demo, total) => { served?; true }
        stopped = told_to_stop() => { stopped?; false }
    };
    let (folder, books) = (demo.site.folder.clone(), demo.books.clone());
    let ledger = Ledger::read(&folder, &books).await?;
    let seconds = demo.console.uptime().as_secs_f64();
    demo.stop().await;
    if has_ended {
        println!("all orders have ended; this run took {seconds:.1} s");
    }
    print_ledger(&folder, &ledger)
}

/// Dies without a word, this long after the first message was handled.
pub(crate) fn die_after(demo: &Demo, millis: u64) {
    let console = demo.console.clone();
    demo.lifecycle.spawn(async move {
        console.first_handled().await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        kill_this_process(&console);
    });
}

/// Serves the other services until it is told to stop.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn serve(demo: Demo) -> Result<()> {
    demo.console.note("ready. Ctrl-C ends it");
    let stopping = told_to_stop();
    tokio::pin!(stopping);
    let mut known = Vec::new();
    loop {
        tokio::select! {
            stopped = &mut stopping => { stopped?; break; }
            () = tokio::time::sleep(LOOK) => {}
        }
        let dead = demo.database.dead_letters().await?;
        if dead != known {
            let all = dead.join("; ");
            demo.console.note(&format!("stopped being tried: {all}"));
            known = dead;
        }
    }
    demo.console.note("stopping");
    demo.stop().await;
    Ok(())
}

async fn place_all(demo: &Demo, total: i64) -> Result<()> {
    let mut are_all_placed = false;
    let mut looked = Instant::now();
    loop {
        let (_, under_way) = demo.shop.counts().await?;
        let room = UNDER_WAY_MAX - under_way;
        if !are_all_placed && room > 0 {
            let placed = demo
                .shop
                .place_missing(total, usize::try_from(room)?)
                .await?;
            are_all_placed = placed == 0;
            continue;
        }
        if are_all_placed && under_way == 0 {
            return Ok(());
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            let dead = demo.database.dead_letters().await?;
            if !dead.is_empty() {
                bail!("messages stopped being tried: {}", dead.join("; "));
            }
        }
        tokio::time::sleep(PACE).await;
    }
}
