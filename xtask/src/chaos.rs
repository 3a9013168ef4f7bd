//! `cargo xtask chaos`: services killed and cut off while money moves, with servers of their own.

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
    /// For the chaos runner: `--minutes 10`, `--seed 7`, `--only postgres`, `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    handed_on: Vec<String>,
}

/// Runs the chaos runner. The services are up only for what they leave behind: how to make more.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let mut build = workspace.cargo();
    build.args(["build", "--package", "sagabus-chaos"]);
    if !process::inherit(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let held = services::hold(&workspace, arguments.choice)?;
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "sagabus-chaos", "--", "run"]);
    command.args(&arguments.handed_on);
    services::set_variables(&mut command, Some(&held));
    let status = process::inherit(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
