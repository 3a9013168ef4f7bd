//! `cargo xtask bench plans`: the tests that look at the plans of hot statements, over tables as full
//! as is asked.

use std::process::ExitCode;

use clap::Parser;

use crate::fail::Result;
use crate::services::{self, Choice, Kind};
use crate::workspace::Workspace;
use crate::{process, say};

/// The variable by which the tests know how many rows to make.
const ROWS: &str = "SAGABUS_PLAN_ROWS";
/// What the tests have in their names, on both databases.
const NAMED: &str = "hot_statements";

/// Looks at the plans of hot statements.
#[derive(Debug, Parser)]
#[command(name = "plans")]
struct Arguments {
    /// Rows of each table.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
}

/// Runs the tests, if that is what the bench was asked for.
pub(crate) fn run(
    workspace: &Workspace,
    choice: Choice,
    handed_on: &[String],
) -> Option<Result<ExitCode>> {
    (handed_on.first()? == "plans").then(|| look(workspace, choice, handed_on))
}

fn look(workspace: &Workspace, choice: Choice, handed_on: &[String]) -> Result<ExitCode> {
    let Arguments { rows } = Arguments::parse_from(handed_on);
    let mut command = workspace.cargo();
    command.args(["test", "--package", "sagabus-outbox", "--all-features"]);
    command.args(["--lib", "--test", "it", "--", "--nocapture", NAMED]);
    command.env(ROWS, rows.to_string());
    let needed = Kind::test_set().into_iter();
    let needed = needed.filter(|service| service.kind() == Kind::Postgres);
    let held = services::hold_only(workspace, choice, needed.collect())?;
    services::set_variables(&mut command, Some(&held));
    say::step(format!("plans over {rows} rows a table"));
    let status = process::inherit(&mut command)?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_are_for_the_bench_program() {
        let workspace = Workspace {
            root: "/nowhere".into(),
        };
        let words = ["run".to_owned(), "plans".to_owned()];
        assert!(run(&workspace, Choice::default(), &words).is_none());
        let words = ["plans", "--rows", "5"];
        assert_eq!(Arguments::parse_from(words).rows, 5);
    }
}
