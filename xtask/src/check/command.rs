//! Runs the checks and says how each ended.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::list::{CHECKS, Check, Outcome, Tree};
use crate::fail::{Result, fail};
use crate::say;
use crate::workspace::Workspace;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run these checks only; see `--list`.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// Show the checks and stop.
    #[arg(long)]
    list: bool,
}

/// Runs every check that was asked for; fails if one of them did.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let checks = chosen(&arguments.only)?;
    if arguments.list {
        for check in checks {
            say::result(format_args!("{:<12} {}", check.name, check.what));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let tree = Tree::read(Workspace::find()?)?;
    let mut ended = Vec::new();
    for check in checks {
        say::step(format!("{}: {}", check.name, check.what));
        let started = Instant::now();
        let outcome = (check.run)(&tree)?;
        show_findings(&outcome);
        ended.push((check, outcome, started.elapsed()));
    }
    Ok(summary(&ended))
}

fn chosen(only: &[String]) -> Result<Vec<&'static Check>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| CHECKS.iter().all(|c| c.name != **name))
    {
        return fail(format!(
            "there is no check `{unknown}`; see `cargo xtask check --list`"
        ));
    }
    let wanted = |check: &&Check| only.is_empty() || only.iter().any(|name| name == check.name);
    Ok(CHECKS.iter().filter(wanted).collect())
}

fn show_findings(outcome: &Outcome) {
    match outcome {
        Outcome::Found(found) => found
            .iter()
            .for_each(|finding| say::result(format_args!("{finding}"))),
        Outcome::Broken(message) => say::result(format_args!("{message}")),
        Outcome::NotRun(why) => say::detail(format!("not run: {why}")),
        Outcome::Passed => {}
    }
}

fn summary(ended: &[(&Check, Outcome, Duration)]) -> ExitCode {
    say::result("");
    let mut n_failed = 0;
    for (check, outcome, took) in ended {
        let word = match outcome {
            Outcome::Passed => "ok".to_owned(),
            Outcome::Found(found) => format!("FAILED ({} found)", found.len()),
            Outcome::Broken(_) => "FAILED".to_owned(),
            Outcome::NotRun(why) => format!("not run ({why})"),
        };
        n_failed += usize::from(matches!(outcome, Outcome::Found(_) | Outcome::Broken(_)));
        say::result(format_args!(
            "{:<12} {:>10}  {word}",
            check.name,
            say::time(*took)
        ));
    }
    if n_failed == 0 {
        say::result(format_args!("check: green"));
        ExitCode::SUCCESS
    } else {
        say::result(format_args!("check: {n_failed} of {} failed", ended.len()));
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_chosen_by_name() {
        let names = |only: &str| {
            chosen(&[only.to_owned()]).map(|c| c.iter().map(|c| c.name).collect::<Vec<_>>())
        };
        assert_eq!(names("fmt").unwrap(), ["fmt"]);
        assert!(
            names("nonsense")
                .unwrap_err()
                .to_string()
                .contains("`nonsense`")
        );
    }
}
