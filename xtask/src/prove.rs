//! `cargo xtask prove`: every proof in its short form, and one table of what was found.
//!
//! Programs and tests say a figure as `figure: <what>: <value>` on a line of its own.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::fail::{Result, fail};
use crate::services::{self, Choice, Held};
use crate::workspace::Workspace;
use crate::{process, say};

/// One proof.
#[derive(Debug)]
struct Proof {
    /// One word, for `--only` and the table.
    name: &'static str,
    /// What it shows.
    what: &'static str,
    /// The arguments for cargo.
    arguments: &'static [&'static str],
}

/// Fast ones first.
const PROOFS: &[Proof] = &[
    Proof {
        name: "model",
        what: "the design, in every state of its models, and its mutants",
        arguments: &["run", "--quiet", "--package", "sagabus-model"],
    },
    Proof {
        name: "simulation",
        what: "the engine, over a store and a broker that fail as seeds say",
        arguments: &[
            "run",
            "--quiet",
            "--release",
            "--package",
            "sagabus-sim",
            "--",
            "--seeds",
            "10000",
        ],
    },
    Proof {
        name: "kills",
        what: "real processes killed at every step, and each step without its guard",
        arguments: &[
            "test",
            "--package",
            "sagabus",
            "--all-features",
            "--test",
            "it",
            "killed",
        ],
    },
    Proof {
        name: "doubt",
        what: "real databases frozen, ended and cut off with commits under way",
        arguments: &[
            "test",
            "--package",
            "sagabus",
            "--all-features",
            "--test",
            "it",
            "outage",
        ],
    },
    Proof {
        name: "chaos",
        what: "services killed, frozen and cut off while money moves",
        arguments: &[
            "run",
            "--quiet",
            "--package",
            "sagabus-chaos",
            "--",
            "run",
            "--minutes",
            "1.6",
        ],
    },
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run these proofs only: model, simulation, kills, doubt, chaos.
    #[arg(long, value_name = "PROOF")]
    only: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

/// How one proof ended, and what it said.
struct Ended {
    proof: &'static Proof,
    passed: bool,
    took: Duration,
    figures: Vec<(String, String)>,
}

/// Runs the proofs; fails if one of them did.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let proofs = chosen(&arguments.only)?;
    let workspace = Workspace::find()?;
    let held = services::hold(&workspace, arguments.choice)?;
    let mut ended = Vec::new();
    for proof in proofs {
        ended.push(run_proof(proof, &workspace, &held)?);
    }
    drop(held);
    show(&ended);
    Ok(if ended.iter().all(|one| one.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn chosen(only: &[String]) -> Result<Vec<&'static Proof>> {
    let is_known = |name: &&String| PROOFS.iter().any(|proof| proof.name == **name);
    if let Some(unknown) = only.iter().find(|name| !is_known(name)) {
        return fail(format!(
            "there is no proof `{unknown}`; see `cargo xtask prove --help`"
        ));
    }
    let wanted = |proof: &&Proof| only.is_empty() || only.iter().any(|name| name == proof.name);
    Ok(PROOFS.iter().filter(wanted).collect())
}

fn run_proof(proof: &'static Proof, workspace: &Workspace, held: &Held) -> Result<Ended> {
    let mut command = workspace.cargo();
    command.args(proof.arguments);
    services::set_variables(&mut command, Some(held));
    say::step(format!("{}: {}", proof.name, proof.what));
    say::detail(process::show(&command));
    let started = Instant::now();
    let mut figures = Vec::new();
    let status = process::stream(&mut command, |line| figures.extend(figure(line)))?;
    Ok(Ended {
        proof,
        passed: status.success(),
        took: started.elapsed(),
        figures,
    })
}

/// What one line of output says, if it says a figure.
fn figure(line: &str) -> Option<(String, String)> {
    let (what, value) = line.trim().strip_prefix("figure: ")?.rsplit_once(": ")?;
    Some((what.to_owned(), value.to_owned()))
}

fn show(ended: &[Ended]) {
    say::result("");
    say::result(format_args!(
        "{:<11} {:<52} {:>14}",
        "proof", "figure", "value"
    ));
    for one in ended {
        let word = if one.passed { "ok" } else { "FAILED" };
        let (name, took) = (one.proof.name, say::time(one.took));
        say::result(format_args!(
            "{name:<11} {:<52} {word:>14}",
            format!("in {took}")
        ));
        for (what, value) in &one.figures {
            say::result(format_args!("{:<11} {what:<52} {value:>14}", ""));
        }
        if one.figures.is_empty() {
            say::result(format_args!("{:<11} said no figure", ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_other_lines_are_not() {
        let read = |line: &str| figure(line);
        let pair = |what: &str, value: &str| Some((what.to_owned(), value.to_owned()));
        assert_eq!(read("figure: seeds: 10000"), pair("seeds", "10000"));
        assert_eq!(read("figure: SQLite, lost: 0\n"), pair("SQLite, lost", "0"));
        assert_eq!(read("figure: guards: 12 of 12"), pair("guards", "12 of 12"));
        for line in ["seeds: 10000", "figure: nothing", "test figure: x: 1"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn proofs_are_chosen_by_name() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|proofs| proofs.iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["simulation", "model"]).unwrap(),
            ["model", "simulation"]
        );
        assert_eq!(names(&[]).unwrap().len(), PROOFS.len());
        assert!(names(&["nonsense"]).is_err());
    }
}
