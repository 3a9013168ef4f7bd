//! What a message does to its instance beside the data, and how that becomes part of the unit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::dispatch::KEY_BYTES_MAX;
use sagabus_core::envelope::{Due, Envelope, Outgoing, Timer};
use sagabus_core::error::HandlerError;
use sagabus_core::request::Request;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Origin};
use sagabus_core::{
    BusError, Command, Ctx, Destination, InstanceId, Label, Message, MessageId, Reason, headers,
};

use crate::lock::Reserve;
use crate::message::RequestTimedOut;
use crate::saga::Saga;

/// The name of a timer or a question.
pub(crate) type Name = Cow<'static, str>;

/// What is wanted beside the new data.
pub(crate) struct Effects {
    /// The saga's name.
    kind: Arc<str>,
    /// Made with the first effect: many messages have none, and what is small is moved quickly.
    wanted: Option<Box<Wanted>>,
}

#[derive(Default)]
struct Wanted {
    outgoing: Vec<Outgoing>,
    replies: Vec<Outgoing>,
    responses: Vec<Outgoing>,
    armed: Vec<Armed>,
    disarmed: Vec<Name>,
    given_back: Vec<Envelope>,
    /// Locks, by the name of the question.
    reserved: Vec<(Name, Reserve)>,
    /// Locks that are given back.
    released: Vec<Name>,
}

struct Armed {
    name: Name,
    after: Duration,
    /// What it brings; none for a question that is open until it is given up.
    message: Option<Outgoing>,
    /// The question whose time-out this is.
    question: Option<Outgoing>,
}

impl Effects {
    pub(crate) fn new(kind: Arc<str>) -> Self {
        Self { kind, wanted: None }
    }

    fn wanted(&mut self) -> &mut Wanted {
        self.wanted.get_or_insert_default()
    }

    /// Sends or publishes a message.
    pub(crate) fn send(&mut self, message: Outgoing) {
        self.wanted().outgoing.push(message);
    }

    /// Answers whoever sent the message.
    pub(crate) fn reply(&mut self, answer: Outgoing) {
        self.wanted().replies.push(answer);
    }

    /// Puts messages back that were kept for later.
    pub(crate) fn give_back(&mut self, envelopes: impl Iterator<Item = Envelope>) {
        self.wanted().given_back.extend(envelopes);
    }

    /// Asks for a lock, by the name of the question.
    pub(crate) fn reserve(&mut self, name: impl Into<Name>, reserve: Reserve) {
        self.wanted().reserved.push((name.into(), reserve));
    }

    /// Gives a lock back.
    pub(crate) fn release(&mut self, name: impl Into<Name>) {
        self.wanted().released.push(name.into());
    }

    /// Takes out the locks that are asked for and those that are given back.
    pub(crate) fn take_locks(&mut self) -> (Vec<(Name, Reserve)>, Vec<Name>) {
        let take = |wanted: &mut Box<Wanted>| {
            let Wanted {
                reserved, released, ..
            } = &mut **wanted;
            (std::mem::take(reserved), std::mem::take(released))
        };
        self.wanted.as_mut().map(take).unwrap_or_default()
    }

    /// Answers the request that started the instance.
    pub(crate) fn respond<M: Message>(&mut self, answer: &M) -> Result<(), HandlerError> {
        self.wanted().responses.push(outgoing(answer)?);
        Ok(())
    }

    /// Arms a timer; one that has the name is replaced.
    pub(crate) fn arm<M: Message>(
        &mut self,
        name: impl Into<Name>,
        after: Duration,
        message: &M,
    ) -> Result<(), HandlerError> {
        let message = outgoing(message)?;
        self.put(name.into(), after, Some(message), None);
        Ok(())
    }

    /// Asks a question, with a time-out.
    pub(crate) fn ask<C: Command>(
        &mut self,
        name: impl Into<Name>,
        timeout: Duration,
        question: &C,
    ) -> Result<(), HandlerError> {
        let name = name.into();
        let timed_out = RequestTimedOut {
            request: name.clone().into_owned(),
        };
        let mut message = outgoing(&timed_out)?;
        message.envelope.message_type = RequestTimedOut::type_for(&self.kind).into();
        let question = outgoing(question)?;
        self.put(name, timeout, Some(message), Some(question));
        Ok(())
    }

    /// Asks a question without a time-out: it stays open until it is disarmed.
    pub(crate) fn ask_openly(&mut self, name: Name, question: Outgoing) {
        self.put(name, Duration::ZERO, None, Some(question));
    }

    /// Returns which arming of its timers and questions a message makes.
    pub(crate) fn generation(cx: &Ctx) -> u64 {
        let before = cx.instance().map_or(0, |instance| instance.version);
        // Versions never restart, so neither do generations.
        u64::try_from(before).unwrap_or(0) + 1
    }

    fn put(
        &mut self,
        name: Name,
        after: Duration,
        message: Option<Outgoing>,
        question: Option<Outgoing>,
    ) {
        let armed = &mut self.wanted().armed;
        armed.retain(|armed| armed.name != name);
        armed.push(Armed {
            name,
            after,
            message,
            question,
        });
    }

    /// Cancels a timer.
    pub(crate) fn disarm(&mut self, name: impl Into<Name>) {
        let (name, wanted) = (name.into(), self.wanted());
        wanted.armed.retain(|armed| armed.name != name);
        wanted.disarmed.push(name);
    }
}

/// Where an instance goes.
pub(crate) struct Move {
    pub(crate) id: InstanceId,
    /// Nothing of a former life is taken over but its version.
    pub(crate) is_new: bool,
    pub(crate) status: InstanceStatus,
    pub(crate) state_from: Option<&'static str>,
    pub(crate) state: Option<&'static str>,
    pub(crate) schema_version: i32,
    pub(crate) data: Bytes,
    pub(crate) note: Option<&'static str>,
    pub(crate) labels: Option<Vec<Label>>,
}

/// The labels of an instance before it moves.
pub(crate) enum Before {
    /// A new key: none.
    None,
    /// A tombstone's, which a new life gives up.
    FormerLife,
    /// Those of a running instance.
    Labels(Vec<(&'static str, String)>),
}

impl Before {
    pub(crate) fn of<S: Saga>(cx: &Ctx, is_new: bool, data: &S) -> Self {
        match cx.instance() {
            None => Self::None,
            Some(_) if is_new => Self::FormerLife,
            Some(_) => Self::Labels(data.labels()),
        }
    }
}

/// Returns an instance's labels where they have changed.
pub(crate) fn changed_labels<S: Saga>(
    before: &Before,
    data: &S,
) -> Result<Option<Vec<Label>>, HandlerError> {
    let labels = data.labels();
    let is_same = match before {
        Before::None => labels.is_empty(),
        Before::FormerLife => false,
        Before::Labels(before) => labels == *before,
    };
    if is_same {
        return Ok(None);
    }
    for (at, (name, value)) in labels.iter().enumerate() {
        let refuse = |fact: String| {
            let error = format!("label `{name}` {fact}");
            Err(HandlerError::dead(Reason::UnusableKey, error))
        };
        if value.is_empty() || value.len() > KEY_BYTES_MAX {
            return refuse(format!("has {} bytes", value.len()));
        }
        if labels[..at].iter().any(|(other, _)| other == name) {
            return refuse("is given twice".to_owned());
        }
    }
    let labels = labels.into_iter().map(|(name, value)| Label {
        name: name.into(),
        value,
    });
    Ok(Some(labels.collect()))
}

/// Stages a move with its effects.
pub(crate) fn stage(cx: &Ctx, to: Move, effects: Effects) -> Result<(), HandlerError> {
    let before = cx.instance();
    let running = before.filter(|_| !to.is_new);
    let expected = before.map_or(0, |instance| instance.version);
    let mut timers = Timers {
        id: &to.id,
        generation: Effects::generation(cx),
        held: running.map_or_else(BTreeMap::new, |instance| instance.timers.clone()),
        removed: Vec::new(),
    };
    if let Some(fired) = cx.timer() {
        timers.held.remove(&fired.name);
    }
    let origin = match running {
        Some(instance) => instance.origin.clone(),
        None => Some(origin(cx)),
    };
    let is_over = to.status == InstanceStatus::Completed;
    if let Some(wanted) = effects.wanted {
        wanted.put(cx, &mut timers, origin.as_ref(), is_over)?;
    }
    if is_over {
        let held = std::mem::take(&mut timers.held);
        timers.removed.extend(held.into_keys());
    }
    cx.note(to.state_from.map(Into::into), to.note.map(Into::into))?;
    let Timers { held, removed, .. } = timers;
    cx.change_instance(InstanceChange {
        id: to.id,
        expected,
        status: to.status,
        state: to.state.map(Into::into),
        schema_version: to.schema_version,
        data: to.data,
        timers: held,
        disarmed: removed,
        origin,
        labels: to.labels,
    })
}

impl Wanted {
    fn put(
        self,
        cx: &Ctx,
        timers: &mut Timers<'_>,
        origin: Option<&Origin>,
        is_over: bool,
    ) -> Result<(), HandlerError> {
        for name in &self.disarmed {
            timers.disarm(name);
        }
        for one in self.outgoing {
            cx.push(one)?;
        }
        for one in self.replies {
            cx.push_reply(one)?;
        }
        for one in self.responses {
            cx.push(response(one, origin)?)?;
        }
        for armed in self.armed {
            timers.arm(cx, armed, is_over)?;
        }
        for envelope in self.given_back {
            cx.give_back(envelope)?;
        }
        Ok(())
    }
}

/// The timers of an instance while it moves.
struct Timers<'a> {
    id: &'a InstanceId,
    generation: u64,
    held: BTreeMap<String, u64>,
    removed: Vec<String>,
}

impl Timers<'_> {
    fn disarm(&mut self, name: &str) {
        if self.held.remove(name).is_some() {
            self.removed.push(name.to_owned());
        }
    }

    /// Sends a timer to this endpoint, under the generation that the instance holds, and the
    /// question that it limits. Of an instance that is over only the question leaves.
    fn arm(&mut self, cx: &Ctx, armed: Armed, is_over: bool) -> Result<(), HandlerError> {
        let (name, generation) = (armed.name.into_owned(), self.generation);
        let mut message = armed.message;
        if let Some(mut question) = armed.question {
            let request = Request {
                instance: self.id.clone(),
                name: name.clone(),
                generation,
            };
            request.write(&mut question.envelope.headers);
            if let Some(message) = &mut message {
                request.write(&mut message.envelope.headers);
            }
            cx.push(question)?;
        }
        self.disarm(&name);
        if is_over {
            return Ok(());
        }
        self.held.insert(name.clone(), generation);
        let Some(mut message) = message else {
            return Ok(());
        };
        let text = generation.to_string();
        message.envelope.id = MessageId::derived(&[&self.id.kind, &self.id.key, &name, &text]);
        let to = &mut message.envelope.headers;
        to.set(headers::TIMER, name.clone());
        to.set(headers::TIMER_GENERATION, text);
        message.destination = Destination::Endpoint(cx.endpoint().clone());
        message.due = Due::After(armed.after);
        message.timer = Some(Timer {
            owner: self.id.clone(),
            name,
            generation,
        });
        cx.push(message).map(drop)
    }
}

/// Notes who started an instance, so that it can answer later.
pub(crate) fn origin(cx: &Ctx) -> Origin {
    let header = |name| cx.headers().get(name).map(str::to_owned);
    Origin {
        reply_to: header(headers::REPLY_TO),
        correlation_id: cx.correlation_id(),
        message_id: cx.message_id(),
        request: header(headers::REQUEST).zip(header(headers::REQUEST_KEY)),
    }
}

/// Addresses an answer to the request that started the instance.
pub(crate) fn response(
    answer: Outgoing,
    origin: Option<&Origin>,
) -> Result<Outgoing, HandlerError> {
    let no_address = || HandlerError::dead(Reason::NoReplyAddress, BusError::NoReplyAddress);
    let origin = origin.ok_or_else(no_address)?;
    let address = origin.reply_to.as_ref().ok_or_else(no_address)?;
    let destination = Destination::parse(address)
        .map_err(|error| HandlerError::dead(Reason::NoReplyAddress, error))?;
    let mut answer = answer.to(destination);
    let to = &mut answer.envelope.headers;
    to.set(headers::CORRELATION_ID, origin.correlation_id);
    if let Some((request, key)) = &origin.request {
        to.set(headers::REQUEST, request.clone());
        to.set(headers::REQUEST_KEY, key.clone());
    }
    Ok(answer)
}

/// Prepares a message.
pub(crate) fn outgoing<M: Message>(message: &M) -> Result<Outgoing, HandlerError> {
    // A message that has no encoded form will have none the next time either.
    Outgoing::new(message).map_err(|error| HandlerError::from(error).terminal())
}

/// Says whether a message answers a question, or is news about one, that its instance no longer
/// asks.
pub(crate) fn is_stale(request: &Request, instance: Option<&Instance>) -> bool {
    let held = instance.and_then(|instance| instance.timers.get(&request.name));
    held != Some(&request.generation)
}
