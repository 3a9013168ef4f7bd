//! The command line of a service's own program.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches};
use sagabus_core::HostBuilder;
use sagabus_ops::machines;

use crate::arguments::{Arguments, Noun, OWN_ABOUT, OwnNoun};
use crate::failure::Failure;
use crate::machines::show_release;
use crate::operator::ask;
use crate::output::Output;
use crate::place::Place;
use crate::{config, hosts, plan};

/// Gives a service the command line of `sagabus`, and what needs the service's code beside it: reads
/// the arguments of this process, does what they say and returns the exit code.
///
/// - `run` runs the service, on the database of `--store`, or on the one that `host` gave it.
/// - `plan --against URL` compares the release with what a database holds, and ends with exit code 6
///   where it could not go on with that: a gate before a roll-out.
/// - `describe` and `machines` show what the program is made of; they need no database.
/// - Everything else is what the program `sagabus` does.
///
/// `host` is called for the first three, before any database is opened. It need not give the host a
/// store.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use sagabus_core::{BuildError, Host, HostBuilder};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Greet;
/// # impl sagabus_core::Message for Greet { const TYPE: &'static str = "hello.greet"; }
/// # async fn greet(_: Greet) {}
///
/// async fn host() -> Result<HostBuilder, BuildError> {
///     Ok(Host::builder("hello").endpoint("greeter", |e| e.handle(greet)))
/// }
///
/// fn main() -> ExitCode {
///     sagabus_cli::main(host)
/// }
/// ```
pub fn main<F, Made, E>(host: F) -> ExitCode
where
    F: FnOnce() -> Made,
    Made: Future<Output = Result<HostBuilder, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(failure) => return failure.report().into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report().into(),
    };
    let host = async { host().await.map_err(|error| Failure::Host(error.into())) };
    match runtime.block_on(run(arguments, host)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}

/// Returns the command as clap knows it. Help names the program as it was called.
fn command() -> Command {
    Arguments::<OwnNoun>::command()
        .about(OWN_ABOUT)
        .after_help("Exit codes: `explain exit-codes`")
        .mut_subcommand("machines", |sub| {
            sub.about("State machines of this program, drawn")
        })
        .mut_subcommand("plan", |sub| {
            sub.about("Compare this release with what a database holds, before it is rolled out")
                .after_help("Example:\n  shop plan --against \"$URL\"")
                .hide(false)
                .mut_arg("release", |argument| argument.hide(true))
        })
        .mut_subcommand("describe", |sub| {
            sub.about("What this program is made of: endpoints, handlers, machines")
        })
        .disable_version_flag(true)
}

/// Reads the arguments.
fn arguments() -> Result<Arguments<OwnNoun>, Failure> {
    let matches = command().get_matches();
    let read = Arguments::from_arg_matches(&matches);
    let mut arguments = read.unwrap_or_else(|error| error.exit());
    config::fill_in(&matches, &mut arguments)?;
    Ok(arguments)
}

async fn run(
    arguments: Arguments<OwnNoun>,
    host: impl Future<Output = Result<HostBuilder, Failure>>,
) -> Result<(), Failure> {
    let out = Output::new(arguments.form());
    let store = arguments.store.as_deref().filter(|store| !store.is_empty());
    let noun = match &arguments.noun {
        OwnNoun::Run => return run_host(host.await?, store).await,
        OwnNoun::Noun(noun) => &**noun,
    };
    match noun {
        Noun::Plan(what) => {
            let release = host.await?.describe()?;
            plan::run(what.against(store), arguments.operator.role, &release, &out).await
        }
        Noun::Machines(verb) => {
            let release = host.await?.describe()?;
            show_release(&machines::in_release(&release), verb, &out)
        }
        Noun::Describe { .. } => hosts::show(&[&host.await?.describe()?], &out),
        Noun::Demo | Noun::Completions { .. } | Noun::Man { .. } => Err(Failure::Usage(
            "completions, manual pages and the demo are of the program `sagabus` [SB0308]"
                .to_owned(),
        )),
        noun => ask(store, noun, &arguments.operator, &out).await,
    }
}

/// Runs the service until it is told to stop.
async fn run_host(host: HostBuilder, store: Option<&str>) -> Result<(), Failure> {
    let host = match store {
        None if host.has_store() => host,
        // Which says, where none is named, that one is missing.
        store => host.shared_store(Place::open(store).await?.store()),
    };
    host.build()?.run().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_ones_own_plans_without_a_file() {
        command().debug_assert();
        let line = ["shop", "plan", "--against", "shop.db"];
        let matches = command().try_get_matches_from(line).unwrap();
        let read = Arguments::<OwnNoun>::from_arg_matches(&matches).unwrap();
        let OwnNoun::Noun(noun) = read.noun else {
            panic!("`plan` is a noun");
        };
        let Noun::Plan(what) = *noun else {
            panic!("`plan` is what was said");
        };
        assert_eq!(what.against(None), Some("shop.db"));
        let help = command().render_help().to_string();
        assert!(help.contains("plan "), "it is shown: {help}");
    }
}
