//! The chaos runner: services that move money, killed, frozen and cut off by a seeded schedule on
//! databases and brokers of its own, and a ledger that tells what was lost, doubled or invented.

#![allow(
    clippy::disallowed_methods,
    reason = "runs processes in real time and owns no tasks of the engine"
)]

// The workload.
mod machine;
mod service;
mod carrier;
// What is done to it.
mod fault;
mod dice;
mod clock;
mod disk;
mod doubt;
mod publications;
mod site;
mod process;
mod client;
mod storm;
mod load;
mod steady;
mod operator;
// What came of it.
mod records;
mod runs;
mod judge;
mod run;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::fault::{Fault, Schedule};
use crate::site::SetUp;
use crate::storm::Plan;

#[derive(Debug, Parser)]
#[command(
    name = "sagabus-chaos",
    about = "Kills services of sagabus while money moves"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the storm on each set-up, and judge.
    Run(Arguments),
    /// Be one host process of a set-up.
    #[command(hide = true)]
    Host(service::Arguments),
}

#[derive(Args, Debug)]
struct Arguments {
    /// Time of storm in all, shared by the set-ups.
    #[arg(long, value_name = "MINUTES", default_value_t = 2.0)]
    minutes: f64,
    /// The schedule's seed; another one in every run where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// These set-ups only.
    #[arg(long, value_name = "SET-UP")]
    only: Vec<SetUp>,
    /// These faults only.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Fault>,
    /// Kill hosts about as fast as they start.
    #[arg(long)]
    storm: bool,
    /// Place four fifths of what the hosts can do, and restart a host, the database or the broker
    /// every minute; judge that 95 % of it was done in time, and that no backlog stayed for longer
    /// than a minute.
    #[arg(long, conflicts_with_all = ["storm", "fault"])]
    steady: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Run(_)) {
        disk::have_mounts();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs threads and a timer");
    let done = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run_all(&arguments).await,
            Command::Host(arguments) => service::run(arguments).await.map(|()| true),
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sagabus-chaos: {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run_all(arguments: &Arguments) -> Result<bool> {
    let all = [
        SetUp::Postgres,
        SetUp::Sqlite,
        SetUp::Rabbitmq,
        SetUp::Kafka,
    ];
    let set_ups = match &arguments.only[..] {
        [] => &all[..],
        only => only,
    };
    let seed = arguments.seed.unwrap_or_else(|| {
        let id = sagabus::MessageId::new().as_uuid().as_u128();
        (id & 0xffff_ffff) as u64
    });
    let time = Duration::from_secs_f64(arguments.minutes * 60.0 / set_ups.len() as f64);
    println!(
        "seed {seed}, {:.0} s of storm on each set-up",
        time.as_secs_f64()
    );
    let plan = plan(arguments, time);
    let folder = folder(seed)?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut in_all = BTreeMap::new();
    for &set_up in set_ups {
        let logs = folder.join(format!("{set_up:?}").to_lowercase());
        let is_good = match run_one(set_up, arguments.steady, &plan, seed, &logs, &mut in_all).await
        {
            Ok(Some(is_good)) => is_good,
            Ok(None) => {
                skipped += 1;
                std::fs::remove_dir_all(&logs)?;
                continue;
            }
            Err(error) => {
                println!("{set_up:?}: FAILED: {error:?}");
                false
            }
        };
        if is_good {
            passed += 1;
            std::fs::remove_dir_all(&logs)?;
        } else {
            failed += 1;
            println!(
                "seed {seed}; the logs of this run are in {}",
                logs.display()
            );
        }
    }
    report::show_all(&in_all);
    if failed == 0 {
        std::fs::remove_dir(&folder)?;
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// Runs one set-up, and shows what came of it; `None` where there is nothing to make it of.
async fn run_one(
    set_up: SetUp,
    is_steady: bool,
    plan: &Plan,
    seed: u64,
    logs: &Path,
    in_all: &mut BTreeMap<&'static str, u64>,
) -> Result<Option<bool>> {
    if is_steady {
        let shown = steady::run(set_up, plan.time, seed, logs).await?;
        return Ok(shown.map(|shown| {
            shown.show();
            shown.is_good()
        }));
    }
    let outcome = run::run(set_up, plan, seed, logs).await?;
    Ok(outcome.map(|outcome| {
        report::show(&outcome);
        report::add(in_all, &outcome);
        outcome.is_good()
    }))
}

fn plan(arguments: &Arguments, time: Duration) -> Plan {
    Plan {
        faults: match &arguments.fault[..] {
            [] => Fault::value_variants().to_vec(),
            faults => faults.to_vec(),
        },
        schedule: match arguments.storm {
            true => Schedule::STORM,
            false => Schedule::MIXED,
        },
        time,
    }
}

fn folder(seed: u64) -> Result<PathBuf> {
    let name = format!("sagabus-chaos-{}-{seed}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
