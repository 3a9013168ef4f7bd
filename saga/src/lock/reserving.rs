//! The side of a saga that reserves: what it holds is noted beside its data, and given back in the
//! commit that ends it.

use std::time::Duration;

use sagabus_core::request::Request;
use sagabus_core::{Ctx, HandlerError, Message, Reason};
use serde::{Deserialize, Serialize};

use super::messages::{NotReserved, Release, ReservationLost, Reserved};
use crate::effects::{Effects, outgoing};
use crate::stored::Book;

/// A lock that an instance has asked for and not given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    resource: String,
    /// Which asking it was.
    generation: u64,
    /// The answer has come that it is had.
    #[serde(default)]
    is_had: bool,
}

/// How long the news that a lock is lost waits for the news that it was had: as long as any message
/// waits for what has to come before it.
const EARLY_MAX: Duration = Duration::from_secs(30);

/// Refuses for now the news that a lock is lost where it overtook the news that it was had: handled
/// in this order, the instance would believe for ever to have it.
pub(crate) fn too_early(
    book: &Book,
    cx: &Ctx,
    request: Option<&Request>,
) -> Result<(), HandlerError> {
    let held = request.and_then(|request| book.locks.get(&request.name));
    let is_loss = cx.envelope().message_type == ReservationLost::TYPE;
    if !is_loss || held.is_none_or(|held| held.is_had) {
        return Ok(());
    }
    let error = "the loss of a lock came before the lock";
    let reason = Reason::EventNotAcceptedInState;
    Err(HandlerError::defer(reason, EARLY_MAX, error))
}

/// Takes note of an answer. A question stays open while its lock is held, so that the loss of it is
/// an answer, too.
pub(crate) fn answered(book: &mut Book, effects: &mut Effects, cx: &Ctx, request: Request) {
    let entries = book.entries();
    let Some(held) = entries.and_then(|one| one.locks.get_mut(&request.name)) else {
        effects.disarm(request.name);
        return;
    };
    match cx.envelope().message_type.as_ref() {
        Reserved::TYPE => held.is_had = true,
        NotReserved::TYPE | ReservationLost::TYPE => {
            book.locks.remove(&request.name);
            effects.disarm(request.name);
        }
        // The question is a dead letter. Redriven, it would take a lock of which nobody knows: what
        // gives it back stands behind it in line.
        _ => effects.release(request.name),
    }
}

/// Sends what asks for locks and what gives them back, and notes it: to be called before the book
/// is written.
pub(crate) fn settle(
    book: &mut Book,
    effects: &mut Effects,
    cx: &Ctx,
    is_over: bool,
) -> Result<(), HandlerError> {
    let (mut wanted, mut given_back) = effects.take_locks();
    if is_over {
        wanted.clear();
        given_back.extend(book.locks.keys().map(|name| name.clone().into()));
    }
    // Who asks again under a name gives back what it had by it.
    given_back.extend(wanted.iter().map(|(name, _)| name.clone()));
    let id = cx.instance_id();
    let id = id.ok_or_else(|| HandlerError::new("message has lost its key").terminal())?;
    for name in given_back {
        let Some(held) = book.locks.remove(name.as_ref()) else {
            continue;
        };
        let release = Release {
            resource: held.resource,
            kind: id.kind.to_string(),
            key: id.key.to_string(),
            name: name.to_string(),
            generation: held.generation,
        };
        effects.send(outgoing(&release)?);
        effects.disarm(name);
    }
    let generation = Effects::generation(cx);
    for (name, reserve) in wanted {
        let held = Held {
            resource: reserve.resource().to_owned(),
            generation,
            is_had: false,
        };
        book.locks.insert(name.to_string(), held);
        effects.ask_openly(name, outgoing(&reserve)?);
    }
    Ok(())
}
