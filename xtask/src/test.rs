//! `cargo xtask test`: every stage, with the services up, and the totals last.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::evidence::Evidence;
use crate::fail::{Doing, Result, fail};
use crate::failures::Failures;
use crate::services::{self, Choice, Held};
use crate::stages::{Call, STAGES, Stage};
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{process, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run these stages only; see `--list`.
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Show the stages and stop.
    #[arg(long)]
    list: bool,
    /// Leave every service out: what needs PostgreSQL or a broker is not run, and that is said.
    #[arg(long)]
    no_postgres: bool,
    /// Write the closing line to this file too.
    #[arg(long, value_name = "FILE")]
    totals: Option<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Handed to the tests: a name to filter by, `--nocapture`, ..
    #[arg(last = true)]
    handed_on: Vec<String>,
}

/// How one stage ended.
struct Ended {
    stage: &'static Stage,
    passed: bool,
    totals: Totals,
    failures: Failures,
    took: Duration,
}

/// Runs the stages; fails if one of them did.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stages = chosen(&arguments.only)?;
    if arguments.list {
        for stage in stages {
            say::result(format_args!("{:<14} {}", stage.name, stage.what));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    let mut not_run = Vec::new();
    let held = if arguments.no_postgres {
        not_run.push("everything on PostgreSQL, RabbitMQ and Kafka (--no-postgres)");
        None
    } else {
        Some(services::hold(&workspace, arguments.choice)?)
    };
    let (mut ended, mut evidence) = (Vec::new(), Evidence::default());
    for stage in stages {
        let one = run_stage(stage, &workspace, held.as_ref(), arguments, &mut evidence)?;
        ended.push(one);
    }
    drop(held);
    if !evidence.is_empty() {
        say::result(format_args!("\n{evidence}"));
    }
    let totals = summary(&ended, &not_run);
    if let Some(path) = &arguments.totals {
        fs::write(path, format!("{totals}\n")).doing(format!("write {}", path.display()))?;
    }
    say::result(format_args!("{totals}"));
    let passed = ended.iter().all(|stage| stage.passed);
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn chosen(only: &[String]) -> Result<Vec<&'static Stage>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| STAGES.iter().all(|s| s.name != **name))
    {
        return fail(format!(
            "there is no stage `{unknown}`; see `cargo xtask test --list`"
        ));
    }
    let wanted = |stage: &&Stage| only.is_empty() || only.iter().any(|name| name == stage.name);
    Ok(STAGES.iter().filter(wanted).collect())
}

fn run_stage(
    stage: &'static Stage,
    workspace: &Workspace,
    held: Option<&Held>,
    arguments: &Arguments,
    evidence: &mut Evidence,
) -> Result<Ended> {
    let mut command = workspace.cargo();
    command.args(stage.command.arguments(&arguments.handed_on));
    services::set_variables(&mut command, held);
    say::step(format!("stage {}: {}", stage.name, stage.what));
    say::detail(process::show(&command));
    let started = Instant::now();
    let (mut totals, mut failures) = (Totals::default(), Failures::default());
    let status = process::stream(&mut command, |line| {
        failures.note(line);
        evidence.note(line);
        let counts_plain = matches!(stage.command, Call::Program(_));
        if counts_plain || line.starts_with("test result: ") {
            totals += Totals::of_line(line).unwrap_or_default();
        }
    })?;
    Ok(Ended {
        stage,
        passed: status.success(),
        totals,
        failures,
        took: started.elapsed(),
    })
}

/// Prints the table; the caller prints the totals as the very last line.
fn summary(ended: &[Ended], not_run: &[&str]) -> Totals {
    let mut totals = Totals::default();
    say::result("");
    say::result(format_args!(
        "{:<14} {:<7} {:>10}  tests",
        "stage", "result", "time"
    ));
    for stage in ended {
        let word = if stage.passed { "ok" } else { "FAILED" };
        let time = say::time(stage.took);
        say::result(format_args!(
            "{:<14} {word:<7} {time:>10}  {}",
            stage.stage.name, stage.totals
        ));
        totals += stage.totals;
    }
    for what in not_run {
        say::result(format_args!("not run: {what}"));
    }
    let failed: Vec<_> = ended.iter().filter(|stage| !stage.passed).collect();
    // A stage that did not compile has no failed test, and is a failure all the same.
    totals.failed = totals.failed.max(failed.len() as u64);
    for stage in failed {
        say::result(format_args!(
            "failed: {}{}",
            stage.stage.name, stage.failures
        ));
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_chosen_by_name_and_kept_in_their_order() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|stages| stages.iter().map(|s| s.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["docs", "unit"]).unwrap(), ["unit", "docs"]);
        assert_eq!(names(&[]).unwrap().len(), STAGES.len());
        assert!(
            names(&["nonsense"])
                .unwrap_err()
                .to_string()
                .contains("`nonsense`")
        );
    }
}
