//! `cargo xtask chaos`: services killed and cut off while money moves, with servers of their own.

use std::process::ExitCode;

use clap::Args;

use crate::fail::Result;
use crate::process;
use crate::services::{self, Choice};
use crate::workspace::Workspace;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Print what the chaos runner understands, and every fault that it knows.
    #[arg(long, short)]
    help: bool,
    /// For the chaos runner: `--minutes 10`, `--seed 7`, `--only postgres`, `--fault kill`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    handed_on: Vec<String>,
}

/// Runs the chaos runner. The services are up only for what they leave behind: how to make more.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    // What hosts can do is asked of a release build.
    let is_steady = arguments.handed_on.iter().any(|word| word == "--steady");
    let profile = is_steady.then_some("--release");
    let mut build = workspace.cargo();
    build.args(["build", "--package", "sagabus-chaos"]);
    build.args(profile);
    if !process::inherit(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "sagabus-chaos"]);
    command.args(profile).args(["--", "run"]);
    command.args(&arguments.handed_on);
    // Help takes no service.
    let held = match arguments.help {
        true => None,
        false => Some(services::hold(&workspace, arguments.choice)?),
    };
    command.args(arguments.help.then_some("--help"));
    services::set_variables(&mut command, held.as_ref());
    let status = process::inherit(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
