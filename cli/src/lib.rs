//! The command line of sagabus: one file per noun, each a thin skin on `sagabus-ops`.

// What is asked.
mod arguments;
mod filter;
// Where the answer comes from and how it is shown.
mod place;
mod output;
mod text;
mod confirm;
mod failure;
// The nouns.
mod status;
mod doctor;
mod dead_letters;
mod outbox;
mod sagas;
mod messages;
mod hosts;
mod endpoints;
mod machines;
mod schedules;
mod migrate;
mod audit;

use std::process::ExitCode;

use arguments::{Arguments, Noun};
use clap::Parser;
use failure::Failure;
use output::Output;
use place::Place;

/// Reads the arguments of this process, does what they say and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let out = Output::new(arguments.json);
    let operator = &arguments.operator;
    if let Noun::Migrate(what) = &arguments.noun {
        return migrate::run(arguments.store.as_deref(), what, &out).await;
    }
    let place = Place::open(arguments.store.as_deref()).await?;
    let admin = place.admin();
    let about = admin.about().await?;
    match &arguments.noun {
        Noun::Status => status::run(admin, &out).await,
        Noun::Doctor => doctor::run(admin, &out).await,
        Noun::DeadLetters(verb) => dead_letters::run(admin, about.now, verb, operator, &out).await,
        Noun::Outbox(verb) => outbox::run(admin, about.now, verb, operator, &out).await,
        Noun::Sagas(verb) => sagas::run(admin, about.now, verb, &out).await,
        Noun::Messages(verb) => messages::run(admin, verb, &out).await,
        Noun::Hosts => hosts::list(admin, about.now, &out).await,
        Noun::Describe { host } => hosts::describe(admin, host.as_deref(), &out).await,
        Noun::Endpoints(verb) => endpoints::run(admin, verb, operator, &out).await,
        Noun::Machines(verb) => machines::run(admin, about.now, verb, &out).await,
        Noun::Schedules(verb) => schedules::run(admin, about.now, verb, operator, &out).await,
        Noun::Audit(page) => audit::run(admin, about.now, page, &out).await,
        Noun::Migrate(_) => Ok(()),
    }
}
