//! The run without a page: place, die, come back, until every order has ended.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::demo::{Demo, kill_this_process};
use crate::ledger::Ledger;
use crate::print_ledger;

/// Orders under way at a time. More would only wait in line, and run into the payment deadline.
const UNDER_WAY_MAX: i64 = 200;

/// How often it looks whether there is room for more.
const PACE: Duration = Duration::from_millis(50);

/// Places the missing orders of `1..=total`, waits until all have ended, prints the ledger.
///
/// # Errors
/// When the database refuses, or a message stopped being tried, so that its order cannot end.
pub(crate) async fn run(demo: Demo, total: i64, kill_after: Option<u64>) -> Result<ExitCode> {
    if let Some(millis) = kill_after {
        let console = demo.console.clone();
        demo.lifecycle.spawn(async move {
            console.first_handled().await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            kill_this_process(&console);
        });
    }
    serve(&demo, total).await?;
    let (folder, reader) = (demo.folder.clone(), demo.shop.reader().clone());
    let ledger = Ledger::read(&folder, &reader).await?;
    let seconds = demo.console.uptime().as_secs_f64();
    demo.stop().await;
    println!("all orders have ended; this run took {seconds:.1} s");
    print_ledger(&folder, &ledger)
}

async fn serve(demo: &Demo, total: i64) -> Result<()> {
    let mut are_all_placed = false;
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
        let dead = demo.dead_letters().await?;
        if !dead.is_empty() {
            bail!("messages stopped being tried: {}", dead.join("; "));
        }
        tokio::time::sleep(PACE).await;
    }
}
