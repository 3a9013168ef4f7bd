//! Developer commands: `cargo xtask <services|test|check|bench|chaos|fuzz|mutants|prove>`.
//!
//! Everything here is plain blocking code: it starts other programs, reads text and prints.
//! Progress goes to standard error; results (`services env`, totals, tables) to standard output.

#![allow(
    clippy::disallowed_methods,
    reason = "developer commands measure real time and own no tasks of the engine"
)]

// What every command uses.
mod fail;
mod interrupt;
mod process;
mod say;
mod workspace;
// The commands.
mod bench;
mod chaos;
mod check;
mod fuzz;
mod mutants;
mod peers;
mod plans;
mod prove;
mod services;
mod stages;
mod test;
mod totals;
mod failures;
mod evidence;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fail::{Error, Result};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of sagabus"
)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Start, show and stop the services that the tests use.
    Services(services::Arguments),
    /// Check formatting, lints, documentation and the guards of this project.
    Check(check::Arguments),
    /// Run every stage of tests with the services up, and print the totals.
    Test(test::Arguments),
    /// Run the bench program with the services up.
    Bench(bench::Arguments),
    /// Kill and cut off services while money moves, and judge what is left.
    Chaos(chaos::Arguments),
    /// Look for input with which what reads strangers' input panics, takes long or much memory.
    Fuzz(fuzz::Arguments),
    /// Make small mistakes in the engine, and look whether a test notices each.
    Mutants(mutants::Arguments),
    /// Run every proof in its short form, and print one table of what was found.
    Prove(prove::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(Error::Interrupted) => {
            eprintln!("xtask: interrupted");
            ExitCode::from(130)
        }
        Err(Error::Failed(message)) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    interrupt::install()?;
    match cli.command {
        Commands::Services(arguments) => services::run(arguments),
        Commands::Check(arguments) => check::run(&arguments),
        Commands::Bench(arguments) => bench::run(&arguments),
        Commands::Chaos(arguments) => chaos::run(&arguments),
        Commands::Fuzz(arguments) => fuzz::run(&arguments),
        Commands::Mutants(arguments) => mutants::run(&arguments),
        Commands::Prove(arguments) => prove::run(&arguments),
        Commands::Test(arguments) => test::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_its_help_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_for_another_program_is_handed_on() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        assert!(parse("xtask bench quick --rows 3").is_ok());
        assert!(parse("xtask chaos --minutes 10 --seed 7").is_ok());
        assert!(parse("xtask prove --only simulation").is_ok());
        assert!(parse("xtask fuzz cron --runs 1000 --keep").is_ok());
        assert!(parse("xtask mutants --part engine --shard 2/8").is_ok());
        assert!(parse("xtask mutants --shard 9/8").is_err());
        assert!(parse("xtask test --only unit -- store --nocapture").is_ok());
        assert!(parse("xtask services up --source nowhere").is_err());
    }
}
