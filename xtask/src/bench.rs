//! `cargo xtask bench`: the measured claims, with the services up that they need.

use std::process::{Command, ExitCode};

use clap::Args;

use crate::fail::Result;
use crate::services::{self, Choice, Kind, Service};
use crate::workspace::Workspace;
use crate::{peers, plans, process};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Leave PostgreSQL out.
    #[arg(long)]
    no_postgres: bool,
    /// For the bench program: `quick`, `--help`, ..; and `plans --rows 1000000`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    handed_on: Vec<String>,
}

/// Runs the bench program.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    if let Some(done) = plans::run(&workspace, arguments.choice, &arguments.handed_on) {
        return done;
    }
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "sagabus-bench"]);
    if !process::inherit(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = program(&workspace, &arguments.handed_on);
    let names = needed(&workspace, arguments)?;
    let folder = peers::build(&workspace, &names)?;
    command.env(peers::FOLDER, folder);
    let held = match needed_services(&names, arguments) {
        none if none.is_empty() => None,
        needed => Some(services::hold_only(&workspace, arguments.choice, needed)?),
    };
    services::set_variables(&mut command, held.as_ref());
    let status = process::inherit(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The bench program with what it is told.
fn program(workspace: &Workspace, told: &[String]) -> Command {
    let mut command = workspace.cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "sagabus-bench",
        "--",
    ]);
    command.args(told);
    command
}

/// Asks the bench program what its rows need, by name, one per line.
fn needed(workspace: &Workspace, arguments: &Arguments) -> Result<String> {
    let mut question = vec!["needs".to_owned()];
    question.extend(arguments.handed_on.iter().cloned());
    process::capture(&mut program(workspace, &question))
}

/// Chooses the services that are named: nobody waits for a broker that no row uses.
fn needed_services(names: &str, arguments: &Arguments) -> Vec<&'static dyn Service> {
    let is_needed = |service: &&dyn Service| {
        let is_left_out = arguments.no_postgres && service.kind() == Kind::Postgres;
        names.lines().any(|name| name == service.kind().name()) && !is_left_out
    };
    Kind::test_set().into_iter().filter(is_needed).collect()
}
