//! `cargo xtask prove`: every proof in its short form, and one table of what was found; below it
//! what long runs have reached, as docs/reliability.md records it.
//!
//! Programs and tests say a figure as `figure: <what>: <value>` on a line of its own; tests are
//! counted.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::fail::{Doing, Result, fail};
use crate::services::{self, Choice, Held};
use crate::totals::Totals;
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
    /// The command of cargo that has to be installed for it, and is no part of cargo.
    needs: Option<&'static str>,
}

/// Where long runs are recorded, and the heading of their table.
const RECORD: (&str, &str) = ("docs/reliability.md", "## What was promised, and reached");

/// Fast ones first.
const PROOFS: &[Proof] = &[
    Proof {
        name: "model",
        what: "the design, in every state of its models, and its mutants",
        arguments: &["run", "--quiet", "--package", "sagabus-model"],
        needs: None,
    },
    Proof {
        name: "orders",
        what: "the engine's tasks, in many orders of who goes first",
        arguments: &["test", "--package", "sagabus-shuttle"],
        needs: None,
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
        needs: None,
    },
    Proof {
        name: "input",
        what: "hostile input: every kept input through its target",
        arguments: &["test", "--package", "sagabus-fuzz"],
        needs: None,
    },
    Proof {
        name: "secrets",
        what: "passwords in nothing that is said, and roles that may do what they must alone",
        arguments: &[
            "test",
            "--package",
            "sagabus-cli",
            "--package",
            "sagabus-rabbitmq",
            "--package",
            "sagabus-kafka",
            "--test",
            "it",
            "--",
            "canary",
            "secret",
            "roles",
        ],
        needs: None,
    },
    Proof {
        name: "licences",
        what: "licences, bans and sources of all dependencies; advisories need a network",
        arguments: &[
            "deny",
            "--all-features",
            "check",
            "--allow",
            "unused-wrapper",
            "bans",
            "licenses",
            "sources",
        ],
        needs: Some("deny"),
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
        needs: None,
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
        needs: None,
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
        needs: None,
    },
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run these proofs only: model, orders, simulation, input, secrets, licences, kills, doubt, chaos.
    #[arg(long, value_name = "PROOF")]
    only: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

/// How one proof ended, and what it said.
struct Ended {
    proof: &'static Proof,
    /// `None`: it was not run.
    passed: Option<bool>,
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
    show_recorded(&workspace)?;
    Ok(if ended.iter().all(|one| one.passed != Some(false)) {
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
    let is_there = |name: &str| process::succeeds(workspace.cargo().args([name, "--version"]));
    if proof.needs.is_some_and(|name| !is_there(name)) {
        return Ok(Ended {
            proof,
            passed: None,
            took: Duration::ZERO,
            figures: Vec::new(),
        });
    }
    let mut command = workspace.cargo();
    command.args(proof.arguments);
    services::set_variables(&mut command, Some(held));
    say::step(format!("{}: {}", proof.name, proof.what));
    say::detail(process::show(&command));
    let started = Instant::now();
    let mut figures = Vec::new();
    let mut tests = Totals::default();
    let status = process::stream(&mut command, |line| {
        figures.extend(figure(line));
        if line.starts_with("test result: ") {
            tests += Totals::of_line(line).unwrap_or_default();
        }
    })?;
    if tests.passed + tests.failed > 0 {
        let all = tests.passed + tests.failed;
        figures.push((
            "tests that passed".to_owned(),
            format!("{} of {all}", tests.passed),
        ));
    }
    Ok(Ended {
        proof,
        passed: Some(status.success()),
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
        let word = match (one.passed, one.proof.needs) {
            (Some(true), _) => "ok".to_owned(),
            (Some(false), _) => "FAILED".to_owned(),
            (None, needs) => format!("not run: no cargo-{}", needs.unwrap_or_default()),
        };
        let (name, took) = (one.proof.name, say::time(one.took));
        say::result(format_args!(
            "{name:<11} {:<52} {word:>14}",
            format!("in {took}")
        ));
        for (what, value) in &one.figures {
            say::result(format_args!("{:<11} {what:<52} {value:>14}", ""));
        }
    }
}

/// Shows what was recorded of long runs, which are not made again here.
fn show_recorded(workspace: &Workspace) -> Result<()> {
    let (file, heading) = RECORD;
    let path = workspace.root.join(file);
    let text = fs::read_to_string(&path).doing(format!("read {}", path.display()))?;
    let rows = recorded(&text, heading);
    if rows.is_empty() {
        return fail(format!("{file} has no table below `{heading}`"));
    }
    say::result(format_args!("\nrecorded in {file}:"));
    for [promise, reached, _] in rows {
        say::result(format_args!("{:<11} {promise:<52} {reached}", "recorded"));
    }
    Ok(())
}

/// The rows of the first table of three columns below a heading.
fn recorded(text: &str, heading: &str) -> Vec<[String; 3]> {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with("## "));
    let table = section
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    // Its head, and the line below that.
    let rows = table.skip(2).filter_map(|line| {
        let cells = line.trim_matches('|').split('|');
        let cells: Vec<String> = cells.map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().ok()
    });
    rows.collect()
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
    fn the_record_is_the_first_table_below_its_heading() {
        let text = "## Before\n| a | b | c |\n|---|---|---|\n| 0 | 0 | 0 |\n## It\nSome words.\n\n\
                    | a | b | c |\n|---|---:|---|\n| kills | 2,000 | seed 7 |\n| cuts | 9 | - |\n\n\
                    | other | b | c |\n## After\n| d | e | f |\n";
        let rows = recorded(text, "## It");
        assert_eq!(rows, [["kills", "2,000", "seed 7"], ["cuts", "9", "-"]]);
        assert!(recorded(text, "## Nowhere").is_empty());
        let ours = Workspace::find().unwrap().root.join(RECORD.0);
        let ours = fs::read_to_string(ours).unwrap();
        assert!(recorded(&ours, RECORD.1).len() > 10);
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
