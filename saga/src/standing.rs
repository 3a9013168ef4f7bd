//! How an instance stands when a message for it comes, and what becomes of one that finds none.

use std::time::Duration;

use sagabus_core::error::HandlerError;
use sagabus_core::request::Request;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Ctx, Reason};

use crate::effects::is_stale;
use crate::message::answered;

/// What becomes of a message that finds no instance and starts none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It waits for the instance for about this long, then it is a dead letter with the reason
    /// `no_instance`. The default, with 30 s.
    Wait(Duration),
    /// It is a dead letter at once, with the same reason.
    DeadLetter,
    /// It is accepted without an effect, with a note in the history.
    Ignore,
}

impl Default for Missing {
    fn default() -> Self {
        // Longer than a slow neighbour takes to start an instance, shorter than people wait before
        // they look for what is missing.
        Self::Wait(Duration::from_secs(30))
    }
}

/// Says whether a key that is over may begin a new life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lives {
    #[default]
    Many,
    One,
}

/// How the instance stands.
pub(crate) enum Standing<'a> {
    /// It runs. With the question that the message answers, which it still asks.
    Running(&'a Instance, Option<Request>),
    /// None, or over: a starting message makes a new one.
    Free,
    /// Nothing is to be done; the history says why.
    Nothing(&'static str),
}

/// Returns the instance that an operator has in hand.
pub(crate) fn held(cx: &Ctx) -> Result<&Instance, HandlerError> {
    let gone = || HandlerError::new("there is no such instance").terminal();
    cx.instance().ok_or_else(gone)
}

/// Looks at the instance of a message of saga `name`. `starts`: the message may start one.
pub(crate) fn look<'a>(
    cx: &'a Ctx,
    name: &str,
    starts: bool,
    lives: Lives,
    missing: Missing,
) -> Result<Standing<'a>, HandlerError> {
    let instance = cx.instance();
    let running = instance.filter(|one| one.status == InstanceStatus::Running);
    let request = answered(cx.envelope(), name);
    if let Some(request) = &request
        && is_stale(request, running)
    {
        return Ok(Standing::Nothing("stale_answer"));
    }
    if let Some(running) = running {
        return Ok(Standing::Running(running, request));
    }
    let message_type = &cx.envelope().message_type;
    let over = instance.filter(|_| !starts || lives == Lives::One);
    if let Some(over) = over {
        let key = &over.id.key;
        let error = format!("`{message_type}` came after {name} {key} was over");
        return Err(HandlerError::dead(Reason::TooLate, error));
    }
    if starts {
        return Ok(Standing::Free);
    }
    let error = format!("no {name} exists yet for this `{message_type}`");
    match missing {
        Missing::Wait(budget) => Err(HandlerError::defer(Reason::NoInstance, budget, error)),
        Missing::DeadLetter => Err(HandlerError::dead(Reason::NoInstance, error)),
        Missing::Ignore => Ok(Standing::Nothing("no_instance")),
    }
}
