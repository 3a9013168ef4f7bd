//! The program `sagabus`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::Guarded;

use crate::arguments::{Arguments, Noun, OperatorArguments};
use crate::failure::Failure;
use crate::output::Output;
use crate::place::Place;
use crate::{
    accounts, audit, config, dead_letters, demo, doctor, endpoints, explain, help, hosts, inbox,
    locks, machines, messages, operations, outbox, plan, sagas, schedules, schema, sight, status,
    timers,
};

/// Does what a command line says, its first word the name of the program, and returns the exit
/// code. For programs that have this one inside.
pub async fn run_with<I, T>(words: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = help::command().try_get_matches_from(words);
    let read = matches.and_then(|matches| {
        let arguments = Arguments::<Noun>::from_arg_matches(&matches)?;
        Ok((matches, arguments))
    });
    let (matches, mut arguments) = match read {
        Ok(read) => read,
        Err(error) => {
            let _ = error.print(); // Nobody is left to be told.
            return u8::try_from(error.exit_code()).unwrap_or(1);
        }
    };
    if let Err(failure) = fill_in(&matches, &mut arguments) {
        return failure.report();
    }
    match run(&arguments).await {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

/// Reads the arguments of this process, does what they say and returns the exit code.
pub fn operator() -> ExitCode {
    let matches = help::command().get_matches();
    let arguments = Arguments::<Noun>::from_arg_matches(&matches);
    let mut arguments = arguments.unwrap_or_else(|error| error.exit());
    if let Err(failure) = fill_in(&matches, &mut arguments) {
        return failure.report().into();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report().into(),
    };
    match runtime.block_on(watch(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}

/// Reads the configuration file for whoever may need it: what explains a wrong one does not.
fn fill_in(matches: &ArgMatches, arguments: &mut Arguments<Noun>) -> Result<(), Failure> {
    match arguments.noun {
        Noun::Explain { .. } | Noun::Completions { .. } | Noun::Man { .. } => Ok(()),
        _ => config::fill_in(matches, arguments),
    }
}

/// Runs once, or again and again.
async fn watch(arguments: Arguments<Noun>) -> Result<(), Failure> {
    let Some(seconds) = arguments.watch else {
        return run(&arguments).await;
    };
    loop {
        if std::io::stdout().is_terminal() {
            // Clears the screen and goes to its first line.
            write!(std::io::stdout(), "\u{1b}[2J\u{1b}[H")?;
        }
        match run(&arguments).await {
            // What was found is what is watched for.
            Ok(()) | Err(Failure::Findings(_) | Failure::Missing(_)) => {}
            Err(failure) => return Err(failure),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            stop = tokio::signal::ctrl_c() => return stop.map_err(Failure::from),
        }
    }
}

async fn run(arguments: &Arguments<Noun>) -> Result<(), Failure> {
    let out = Output::new(arguments.form());
    match &arguments.noun {
        Noun::Completions { shell } => return help::complete(*shell),
        Noun::Man { folder } => return help::write_pages(folder),
        _ => {}
    }
    let store = arguments.store.as_deref();
    ask(store, &arguments.noun, &arguments.operator, &out).await
}

/// Asks a database.
pub(crate) async fn ask(
    store: Option<&str>,
    noun: &Noun,
    operator: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    if let Noun::Schema(verb) = noun {
        return schema::run(store, operator, verb, out).await;
    }
    if let Noun::Plan(what) = noun {
        let release = what.release()?;
        return plan::run(what.against(store), operator.role, &release, out).await;
    }
    if let Noun::Demo = noun {
        return demo::run(store, operator, out).await;
    }
    if let Noun::Explain { code } = noun {
        return explain::run(code.as_deref(), out);
    }
    let place = Place::open(store).await?;
    let guarded = Guarded::new(place.admin(), operator.role).seeing(sight::of(noun)?);
    let admin: &dyn StoreAdmin = &guarded;
    let about = admin.about().await?;
    match noun {
        Noun::Status => status::run(admin, out).await,
        Noun::Doctor => doctor::run(admin, out).await,
        Noun::DeadLetters(verb) => dead_letters::run(admin, about.now, verb, operator, out).await,
        Noun::Operations(verb) => operations::run(admin, about.now, verb, operator, out).await,
        Noun::Outbox(verb) => outbox::run(admin, about.now, verb, operator, out).await,
        Noun::Inbox(verb) => inbox::run(admin, about.now, verb, out).await,
        Noun::Sagas(verb) => sagas::run(admin, about.now, verb, operator, out).await,
        Noun::Locks(verb) => locks::run(admin, about.now, verb, operator, out).await,
        Noun::Messages(verb) => messages::run(admin, verb, operator, out).await,
        Noun::Hosts => hosts::list(admin, about.now, out).await,
        Noun::Describe { host } => hosts::describe(admin, host.as_deref(), out).await,
        Noun::Endpoints(verb) => endpoints::run(admin, verb, operator, out).await,
        Noun::Machines(verb) => machines::run(admin, about.now, verb, out).await,
        Noun::Schedules(verb) => schedules::run(admin, about.now, verb, operator, out).await,
        Noun::Timers(verb) => timers::run(admin, about.now, verb, operator, out).await,
        Noun::Accounts => accounts::run(admin, about.now, out).await,
        Noun::Audit { which, .. } => audit::run(admin, about.now, which, out).await,
        Noun::Schema(_)
        | Noun::Plan(_)
        | Noun::Demo
        | Noun::Explain { .. }
        | Noun::Completions { .. }
        | Noun::Man { .. } => Ok(()),
    }
}
