//! An incident, played through on SQLite with the commands that an operator would type: the gateway
//! of a payment service lets one bank down, messages die and are grouped, the cause is found, a
//! rehearsal and a canary say that it is not gone yet, then that it is, and the accounts balance.
//!
//! `cargo run --example incident` takes a few seconds and needs nothing. In the end every order was
//! charged once, and the audit says who did what.

mod shop;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;

use crate::shop::Shop;

/// Orders in all; every third one is paid by the bank that is let down.
const ORDERS: u32 = 60;
/// Those of them that die.
const LOST: u64 = 20;

/// Where the incident is played.
struct Scene {
    folder: PathBuf,
    shop: Shop,
}

impl Scene {
    /// Types a command, and checks how it ends.
    async fn types(&self, words: &[&str], expected: u8) -> Result<()> {
        println!("$ sagabus {}", shown(words));
        let mut line = vec!["sagabus".to_owned(), "--store".to_owned()];
        line.push(self.folder.join("shop.db").display().to_string());
        line.extend(words.iter().map(|word| self.within(word)));
        let code = sagabus_cli::run_with(line).await;
        ensure!(code == expected, "it ended with code {code}");
        println!();
        Ok(())
    }

    /// Lets orders come, every third one of which is paid by the bank `north`.
    async fn orders(&self, orders: RangeInclusive<u32>) -> Result<()> {
        for order in orders {
            let bank = if order % 3 == 0 { "north" } else { "south" };
            self.shop.charge(order, bank).await?;
        }
        Ok(())
    }

    /// Names a file of this scene.
    fn within(&self, word: &str) -> String {
        match word.ends_with(".json") {
            true => self.folder.join(word).display().to_string(),
            false => word.to_owned(),
        }
    }

    /// Waits until everything that was sent is handled, and no more than `dead` are dead letters.
    async fn settles_with(&self, dead: u64) -> Result<()> {
        loop {
            let counts = self.shop.store().counts().await?;
            if counts.outbox == 0 && counts.dead_letters == dead {
                return Ok(());
            }
            tokio::time::sleep(20.millis()).await;
        }
    }
}

/// Shows words as they are typed.
fn shown(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| match word.contains(' ') {
        true => format!("'{word}'"),
        false => (*word).to_owned(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-incident-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let played = play(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    played
}

async fn play(folder: &Path) -> Result<()> {
    let shop = Shop::open(&folder.join("shop.db")).await?;
    let scene = Scene {
        folder: folder.to_owned(),
        shop,
    };
    breaks(&scene).await?;
    is_understood(&scene).await?;
    is_put_right(&scene).await?;
    balances(&scene).await?;
    scene.shop.stop().await;
    Ok(())
}

/// The gateway lets one bank down, and one message was sent with a mistake.
async fn breaks(scene: &Scene) -> Result<()> {
    println!("# 03:00, {ORDERS} orders come, and the gateway knows the bank `north` no more.\n");
    scene.shop.gateway().lose("north");
    scene.orders(1..=ORDERS / 2).await?;
    scene.settles_with(LOST / 2).await?;
    println!("# A look after half of them: messages die, and all of them alike.\n");
    scene.types(&["dead-letters", "groups"], 0).await?;
    scene.orders(ORDERS / 2 + 1..=ORDERS).await?;
    scene.shop.charge_by_hand(ORDERS + 1).await?;
    scene.settles_with(LOST + 1).await?;
    println!("# And after all of them: the group grows, and one died in its own way.\n");
    scene.types(&["dead-letters", "groups"], 0).await
}

/// What died, and why.
async fn is_understood(scene: &Scene) -> Result<()> {
    println!("# Somebody is woken up. What is wrong?\n");
    scene.types(&["status"], 0).await?;
    scene.types(&["dead-letters", "show", "1"], 0).await?;
    println!("# Would it work by now? A host handles it and undoes all of it.\n");
    let rehearse = ["dead-letters", "rehearse", "1", "--who", "ada"];
    scene.types(&rehearse, 0).await?;
    println!(
        "# No. Perhaps it is only this one? Three go first; the others only if these are handled.\n"
    );
    let canary = ["--text", "north", "--canary", "3", "--rate", "200"];
    let retry = ["dead-letters", "retry"];
    let certain = ["--yes", "--who", "ada", "--why", "incident 17"];
    let line = [&retry[..], &canary, &certain].concat();
    scene.types(&line, 5).await?;
    scene.settles_with(LOST + 1).await?;
    scene.types(&["operations", "show", "1"], 0).await
}

/// The gateway is repaired, and all that died is retried.
async fn is_put_right(scene: &Scene) -> Result<()> {
    println!("# It is not: the gateway lost the bank's certificate. That is put right.\n");
    scene.shop.gateway().repair();
    let rehearse = ["dead-letters", "rehearse", "4", "--who", "ada"];
    scene.types(&rehearse, 0).await?;
    let resume = ["operations", "resume", "1", "--who", "ada"];
    scene.types(&resume, 0).await?;
    scene.settles_with(3 + 1).await?;
    println!("# The three of the canary died again, and are retried, too.\n");
    let retry = ["dead-letters", "retry", "--text", "north"];
    let certain = ["--yes", "--who", "ada", "--why", "incident 17"];
    scene.types(&[&retry[..], &certain].concat(), 0).await?;
    scene.settles_with(1).await?;
    println!("# One is left, which was sent with a mistake. It gets the body that was meant.\n");
    scene.types(&["dead-letters", "list"], 0).await?;
    let mended = serde_json::json!({ "order": ORDERS + 1, "bank": "south", "cents": 4200 });
    std::fs::write(scene.folder.join("mended.json"), mended.to_string())?;
    let edit = ["dead-letters", "edit", "21", "--body", "mended.json"];
    let certain = ["--identity", "keep", "--yes", "--who", "ada"];
    scene.types(&[&edit[..], &certain].concat(), 0).await?;
    scene.settles_with(0).await
}

/// Every order was charged once.
async fn balances(scene: &Scene) -> Result<()> {
    println!("# Do the accounts balance?\n");
    scene.types(&["operations", "list"], 0).await?;
    scene.types(&["audit", "--oldest-first"], 0).await?;
    scene.types(&["accounts"], 0).await?;
    let (charged, twice, cents) = scene.shop.ledger().await?;
    let orders = i64::from(ORDERS) + 1;
    println!("{orders} orders, {charged} charged, {twice} of them twice, {cents} cents");
    ensure!((charged, twice, cents) == (orders, 0, orders * 4200));
    Ok(())
}
