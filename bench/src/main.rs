//! Measured claims: reference programs beside ours in one binary, interleaved, as ratios.
//!
//! `cargo xtask bench run` prints the table; `list` says what is in it.

#![allow(
    clippy::disallowed_methods,
    reason = "the bench measures real time and its reference programs are no part of the engine"
)]
#![cfg_attr(
    not(feature = "brokers"),
    allow(dead_code, reason = "what rows over brokers use is there without them")
)]
#![allow(clippy::cast_precision_loss, reason = "figures are rounded for people")]

// What is measured with.
mod machine;
mod calibration;
mod services;
mod brokers;
mod ratio;
mod row;
mod measure;
// What becomes of it.
mod chart;
mod numbers;
mod report;
mod publish;
mod session;
mod beside;
mod guard;
mod instructions;
// What is measured.
mod source;
mod paths;
mod workload;
mod filling;
mod stopwatch;
mod lag;
mod child;
mod bare;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::brokers::Brokers;
use crate::calibration::Calibration;
use crate::guard::Tally;
use crate::publish::Figures;
use crate::report::Report;
use crate::row::{Alone, Bench, FULL, GROWTH, PEERS, Profile, QUICK, Row};
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
    /// Measure a few rows for two minutes at most; fails where a ratio is far below what was reached.
    Quick,
    /// Say what rows there are.
    List,
    /// Run the named rows, or all.
    Run {
        /// Names, as `list` shows them; one row on both databases, or `H2@SQLite`.
        rows: Vec<String>,
        /// How much is measured; without it a short time, but every row as often as it says.
        #[arg(long, value_enum, default_value_t)]
        profile: Named,
        #[command(flatten)]
        options: Options,
    },
    /// Measure curves: inbox, instances, outbox, history, letters, labels, body, state, destinations,
    /// hosts.
    Growth {
        /// Some of them; all, where none is named.
        curves: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Measure others' programs beside ours: graphile, apalis, apalis-default, river, river-default,
    /// watermill, watermill-64, watermill-default, watermill-latency,
    /// watermill-kafka, watermill-kafka-64, hexeract, hexeract-default.
    Peers {
        /// Some of them; all, where none is named.
        peers: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Count the instructions of the hot path in memory; fails where they are more than recorded.
    Instructions {
        /// Write what was counted down as what is compared with.
        #[arg(long)]
        record: bool,
    },
    /// Measure the machine twice: processor, disk and the way to PostgreSQL.
    Calibrate,
    /// Show two files of results beside each other; fails where something became worse.
    Compare { old: PathBuf, new: PathBuf },
    /// Draw the chart of the README from its table.
    Chart,
    /// Say what the rows of another command need: names of services, one per line.
    #[command(hide = true)]
    Needs {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        of: Vec<String>,
    },
    /// Fill a database, handle all when told to, and say what was done.
    #[command(hide = true)]
    OwnRows { database: String, messages: u64 },
    /// Run one of several hosts until it is told to report.
    #[command(hide = true)]
    ServingHost { database: String },
    /// Do a part of the hot path in memory.
    #[command(hide = true)]
    DoPath { path: paths::Path, messages: u64 },
    /// Run a host that has nothing to do, and print its memory.
    #[command(hide = true)]
    IdleHost { backend: String, at: String },
    #[cfg(feature = "brokers")]
    /// Run a host that relays when told to, and print how much.
    #[command(hide = true)]
    RelayingHost { database: String, broker: String },
    #[cfg(feature = "brokers")]
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
    /// Rows that growth rows grow to, and long backlogs have.
    #[arg(long)]
    grown: Option<u64>,
    /// How long the row STEADY runs.
    #[arg(long)]
    minutes: Option<f64>,
    /// Run one subject of each comparison, without ratios, to look into it with other tools.
    #[arg(long)]
    alone: Option<Alone>,
    /// Keep each row that is done in this folder, and go on with those that it does not have.
    #[arg(long, value_name = "FOLDER")]
    resume: Option<PathBuf>,
    /// Write JSON, Markdown and chart to `docs/bench/NAME.*`, if the run was correct and quiet.
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,
}

/// The profile of a run of named rows.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Named {
    #[default]
    Plain,
    Quick,
    Full,
}

impl Named {
    fn settings(self) -> Profile {
        match self {
            Self::Quick => QUICK,
            Self::Full => FULL,
            Self::Plain => Profile {
                name: "run",
                is_short: false,
                long_backlog: QUICK.grown,
                ..QUICK
            },
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = match &cli.command {
        // What is counted must not depend on which thread does it.
        Command::DoPath { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build();
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
            for row in rows::every() {
                println!("{:22} {:20} {}", row.name, row.on(), row.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Needs { of } => {
            for name in needs(&of) {
                println!("{name}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Quick => guard().await,
        Command::Growth { curves, options } => {
            let rows = chosen_of(rows::growth::curves(), &curves, "G-")?;
            measure(GROWTH, rows, options).await
        }
        Command::Peers { peers, options } => {
            let rows = chosen_of(rows::peers::rows(), &peers, "PEER-")?;
            measure(PEERS, rows, options).await
        }
        Command::OwnRows { database, messages } => {
            rows::serving::run_own_rows(&database, messages).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ServingHost { database } => {
            rows::serving::run_serving_host(&database).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::DoPath { path, messages } => {
            paths::run(path, messages).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::IdleHost { backend, at } => {
            rows::m1::run_idle_host(&backend, &at).await?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "brokers")]
        Command::RelayingHost { database, broker } => {
            rows::m1_backlog::run_relaying_host(&database, &broker).await?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "brokers")]
        Command::SendingHost { database, broker } => {
            rows::outage::run_sending_host(&database, &broker).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            rows,
            profile,
            options,
        } => measure(profile.settings(), chosen(&rows)?, options).await,
        Command::Instructions { record } => Ok(said(instructions::run(record)?)),
        Command::Chart => chart(),
        Command::Calibrate => calibrate().await,
        Command::Compare { old, new } => {
            let beside = beside::files(&old, &new)?;
            print!("{}", beside.table);
            Ok(ExitCode::from(u8::from(beside.is_worse)))
        }
    }
}

/// Says which services the rows of a command line need.
fn needs(of: &[String]) -> Vec<&'static str> {
    let line = ["bench"].into_iter().chain(of.iter().map(String::as_str));
    // What is wrong with the line is said when it is run.
    let rows = match Cli::try_parse_from(line).map(|cli| cli.command) {
        Ok(Command::Quick) => guard::rows(),
        Ok(Command::Growth { curves, .. }) => {
            chosen_of(rows::growth::curves(), &curves, "G-").unwrap_or_default()
        }
        Ok(Command::Peers { peers, .. }) => {
            chosen_of(rows::peers::rows(), &peers, "PEER-").unwrap_or_default()
        }
        Ok(Command::Run { rows, .. }) => chosen(&rows).unwrap_or_default(),
        Ok(Command::Calibrate) => return vec!["postgres"],
        _ => Vec::new(),
    };
    let mut names: Vec<_> = rows.iter().flat_map(Row::needs).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Finds the named rows; all, where none is named.
fn chosen(names: &[String]) -> Result<Vec<Row>> {
    if names.is_empty() {
        return Ok(with_others());
    }
    let is_meant = |row: &Row, name: &str| match name.split_once('@') {
        Some((name, place)) => is_named(row, name) && row.place().eq_ignore_ascii_case(place),
        None => is_named(row, name),
    };
    let mut found = Vec::new();
    for name in names {
        let meant: Vec<Row> = rows::every()
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

/// Ours, the program by hand and others.
fn with_others() -> Vec<Row> {
    let mut rows = rows::all();
    rows.extend(rows::peers::rows());
    rows
}

/// Finds rows of one kind by what follows the prefix of their names; all, where none is named.
fn chosen_of(rows: Vec<Row>, names: &[String], prefix: &str) -> Result<Vec<Row>> {
    let is_meant = |row: &Row, name: &str| row.name.strip_prefix(prefix) == Some(name);
    for name in names {
        if !rows.iter().any(|row| is_meant(row, name)) {
            bail!("nothing is named `{name}`; `list` says what there is");
        }
    }
    let is_chosen = |row: &Row| names.is_empty() || names.iter().any(|name| is_meant(row, name));
    Ok(rows.into_iter().filter(is_chosen).collect())
}

/// A row is meant by its name, and several by what their names begin with: `L1` by `L1-100`.
fn is_named(row: &Row, name: &str) -> bool {
    let family = row.name.split('-').next().unwrap_or_default();
    let is_exact = |row: &Row| row.name.eq_ignore_ascii_case(name);
    is_exact(row) || family.eq_ignore_ascii_case(name) && !rows::every().iter().any(is_exact)
}

async fn measure(mut profile: Profile, rows: Vec<Row>, options: Options) -> Result<ExitCode> {
    profile.reps = options.reps.unwrap_or(profile.reps).max(1);
    profile.seconds = options.seconds.unwrap_or(profile.seconds);
    profile.grown = options.grown.unwrap_or(profile.grown);
    profile.long_backlog = options.grown.unwrap_or(profile.long_backlog);
    profile.minutes = options.minutes.unwrap_or(profile.minutes);
    profile.alone = options.alone;
    let results = Path::new(RESULTS);
    let bench = Bench {
        profile,
        services: Services::open(results)?,
        brokers: Brokers::open(),
    };
    let report = session::run(&bench, rows, options.resume).await;
    bench.services.close().await?;
    let report = report?;
    let figures = report.figures()?;
    print!("{}", figures.markdown);
    let written = figures.write(results, profile.name)?;
    eprintln!("figures: {}", written.display());
    let is_published = match options.publish {
        Some(name) => publish(&report, &figures, &name)?,
        None => true,
    };
    Ok(if report.is_good() && is_published {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes figures into the documentation, or says why not and writes nothing.
fn publish(report: &Report, figures: &Figures, name: &str) -> Result<bool> {
    let objections = publish::objections(report);
    if objections.is_empty() {
        let written = figures.write(Path::new(publish::PUBLISHED), name)?;
        eprintln!("published: {}", written.display());
        return Ok(true);
    }
    eprintln!("not published:");
    for objection in objections {
        eprintln!("  {objection}");
    }
    Ok(false)
}

/// Draws the README's table.
fn chart() -> Result<ExitCode> {
    let readme = std::fs::read_to_string(numbers::README).context("call this at the root")?;
    let chart = Path::new(numbers::CHART);
    std::fs::create_dir_all(chart.parent().context("the chart is in a folder")?)?;
    std::fs::write(chart, numbers::drawn(&readme)?)?;
    eprintln!("drawn: {}", chart.display());
    Ok(ExitCode::SUCCESS)
}

/// Measures what is guarded.
async fn guard() -> Result<ExitCode> {
    let bench = Bench {
        profile: guard::GUARD,
        services: Services::open(Path::new(RESULTS))?,
        brokers: Brokers::open(),
    };
    let judged = guard::run(&bench).await;
    bench.services.close().await?;
    let (rows, counts) = (judged?, instructions::run(false)?);
    Ok(said(Tally {
        kept: rows.kept + counts.kept,
        missed: rows.missed + counts.missed,
        skipped: rows.skipped + counts.skipped,
    }))
}

/// Says how many were judged, in the words of test harnesses.
fn said(tally: Tally) -> ExitCode {
    let Tally {
        kept,
        missed,
        skipped,
    } = tally;
    println!("{kept} passed, {missed} failed, {skipped} skipped");
    ExitCode::from(u8::from(missed > 0))
}

/// Measures the machine twice, and says whether it is quiet.
async fn calibrate() -> Result<ExitCode> {
    let services = Services::open(Path::new(RESULTS))?;
    let taken = async {
        anyhow::Ok((
            Calibration::take(&services).await?,
            Calibration::take(&services).await?,
        ))
    };
    let taken = taken.await;
    services.close().await?;
    let (before, after) = taken?;
    println!("{}\n{}", before.shown(), after.shown());
    let mut moved = before.moved(&after);
    moved.extend(before.crowded().or(after.crowded()));
    for moved in &moved {
        println!("NOISY: {moved}");
    }
    Ok(ExitCode::from(u8::from(!moved.is_empty())))
}
