//! `cargo xtask bench`: the measured claims, with the services up.

use std::process::ExitCode;

use clap::Args;

use crate::fail::Result;
use crate::process;
use crate::services::{self, Choice};
use crate::workspace::Workspace;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Leave PostgreSQL out.
    #[arg(long)]
    no_postgres: bool,
    /// For the bench program: `quick`, `--help`, ..
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    handed_on: Vec<String>,
}

/// Runs the bench program.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let mut command = workspace.cargo();
    command.args(["run", "--release", "--package", "sagabus-bench", "--"]);
    command.args(&arguments.handed_on);
    let held = match arguments.no_postgres {
        true => None,
        false => Some(services::hold(&workspace, arguments.choice)?),
    };
    services::set_variables(&mut command, held.as_ref());
    let status = process::inherit(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
