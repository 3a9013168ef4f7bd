//! Measured claims: reference programs beside ours in one binary, interleaved, as ratios.
//!
//! `cargo xtask bench quick` prints the table; `list` says what is in it.

#![allow(
    clippy::disallowed_methods,
    reason = "the bench measures real time and its reference programs are no part of the engine"
)]
#![allow(clippy::cast_precision_loss, reason = "figures are rounded for people")]

// What is measured with.
mod machine;
mod services;
mod brokers;
mod row;
mod measure;
mod report;
// What is measured.
mod source;
mod workload;
mod filling;
mod stopwatch;
mod bare;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::brokers::Brokers;
use crate::machine::Facts;
use crate::report::{Line, Report};
use crate::row::{Alone, Bench, FULL, Profile, QUICK, Row};
use crate::services::Services;

/// Where results go, below the current folder; git ignores it.
const RESULTS: &str = "bench-results";

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    about = "Measured claims"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every row for a short time.
    Quick(Options),
    /// Run every row for figures that are published.
    Full(Options),
    /// Say what rows there are.
    List,
    /// Run the named rows.
    Run {
        /// Names, as `list` shows them; one row on both databases, or `H2@SQLite`.
        #[arg(required = true)]
        rows: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Say what the rows of another command need: names of services, one per line.
    #[command(hide = true)]
    Needs {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        of: Vec<String>,
    },
    /// Run a host that has nothing to do, and print its memory.
    #[command(hide = true)]
    IdleHost { backend: String, at: String },
    /// Run a host that sends until it is told to stop, and print how much.
    #[command(hide = true)]
    SendingHost { database: String, broker: String },
}

#[derive(Debug, Args)]
struct Options {
    /// Repetitions of each comparison.
    #[arg(long)]
    reps: Option<usize>,
    /// About how long one subject runs in one repetition.
    #[arg(long)]
    seconds: Option<f64>,
    /// Rows that growth rows grow to.
    #[arg(long)]
    grown: Option<u64>,
    /// Run one subject of each comparison, without ratios, to look into it with other tools.
    #[arg(long)]
    alone: Option<Alone>,
    /// Where the figures go as JSON, instead of below `bench-results`.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the table goes as Markdown, beside the standard output.
    #[arg(long)]
    md: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::List => {
            for row in rows::all() {
                println!("{:12} {:20} {}", row.name, row.on(), row.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Needs { of } => {
            for name in needs(&of) {
                println!("{name}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Quick(options) => measure(QUICK, rows::all(), options).await,
        Command::Full(options) => measure(FULL, rows::all(), options).await,
        Command::IdleHost { backend, at } => {
            rows::m1::run_idle_host(&backend, &at).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::SendingHost { database, broker } => {
            rows::outage::run_sending_host(&database, &broker).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { rows, options } => {
            let profile = Profile {
                is_short: false,
                ..QUICK
            };
            measure(profile, chosen(&rows)?, options).await
        }
    }
}

/// Says which services the rows of a command line need.
fn needs(of: &[String]) -> Vec<&'static str> {
    let line = ["bench"].into_iter().chain(of.iter().map(String::as_str));
    // What is wrong with the line is said when it is run.
    let rows = match Cli::try_parse_from(line).map(|cli| cli.command) {
        Ok(Command::Quick(_) | Command::Full(_)) => rows::all(),
        Ok(Command::Run { rows, .. }) => chosen(&rows).unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut names: Vec<_> = rows.iter().flat_map(Row::needs).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Finds the named rows.
fn chosen(names: &[String]) -> Result<Vec<Row>> {
    let is_meant = |row: &Row, name: &str| match name.split_once('@') {
        Some((name, place)) => is_named(row, name) && row.place().eq_ignore_ascii_case(place),
        None => is_named(row, name),
    };
    let mut found = Vec::new();
    for name in names {
        let meant: Vec<Row> = rows::all()
            .into_iter()
            .filter(|row| is_meant(row, name))
            .collect();
        if meant.is_empty() {
            bail!("no row is named `{name}`; `list` says which there are");
        }
        found.extend(meant);
    }
    Ok(found)
}

/// A row is meant by its name, and several by what their names begin with: `L1` by `L1-100`.
fn is_named(row: &Row, name: &str) -> bool {
    let family = row.name.split('-').next().unwrap_or_default();
    let is_exact = |row: &Row| row.name.eq_ignore_ascii_case(name);
    is_exact(row) || family.eq_ignore_ascii_case(name) && !rows::all().iter().any(is_exact)
}

async fn measure(mut profile: Profile, rows: Vec<Row>, options: Options) -> Result<ExitCode> {
    profile.reps = options.reps.unwrap_or(profile.reps).max(1);
    profile.seconds = options.seconds.unwrap_or(profile.seconds);
    profile.grown = options.grown.unwrap_or(profile.grown);
    profile.alone = options.alone;
    let results = Path::new(RESULTS);
    let bench = Bench {
        profile,
        services: Services::open(results)?,
        brokers: Brokers::open(),
    };
    let started = Instant::now();
    let report = run_rows(&bench, rows).await;
    bench.services.close().await?;
    let mut report = report?;
    report.seconds = started.elapsed().as_secs_f64();

    let table = report.markdown();
    print!("{table}");
    let json = options.json.unwrap_or_else(|| {
        let name = format!("{}.json", profile.name);
        results.join(name)
    });
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(&json, text).with_context(|| format!("cannot write `{}`", json.display()))?;
    if let Some(path) = options.md {
        std::fs::write(&path, table)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    eprintln!("figures: {}", json.display());
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run_rows(bench: &Bench, rows: Vec<Row>) -> Result<Report> {
    let mut machine = Facts::read(bench.services.folder())?;
    machine.postgres = bench.services.postgres_version().await?;
    let mut lines = Vec::new();
    for row in rows {
        if !bench.services.has(row.backend) {
            eprintln!(
                "not run: {} on PostgreSQL ({} is not set)",
                row.name,
                services::URL
            );
            continue;
        }
        if let Some(broker) = row.broker.filter(|broker| !bench.brokers.has(*broker)) {
            let variable = broker.variable();
            eprintln!(
                "not run: {} on {} ({variable} is not set)",
                row.name,
                row.on()
            );
            continue;
        }
        let started = Instant::now();
        let found = (row.run)(bench, row.backend).await;
        let found = found.with_context(|| format!("{} on {}", row.name, row.on()))?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{} on {}: {seconds:.1} s", row.name, row.on());
        lines.push(Line {
            row: row.name,
            on: row.on(),
            about: row.about,
            found,
            seconds,
        });
    }
    machine.load_after = machine::load();
    Ok(Report {
        profile: bench.profile,
        machine,
        promises: rows::promises(&lines),
        rows: lines,
        seconds: 0.0,
    })
}
