//! What an API asks: a command goes out, and whoever asked waits for the answer.
//!
//! The answer comes to an endpoint of this service, as any message does. All processes of the
//! service read it; one that gets an answer for another leaves it to that one. (Other frameworks
//! call this a request client.)

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::bus::Sending;
use crate::codec;
use crate::context::Ctx;
use crate::counters::Counters;
use crate::endpoint::EndpointName;
use crate::envelope::Envelope;
use crate::error::{BusError, CodecError, HandlerError, RequestError};
use crate::handler::{Decoded, Need, Subscriber};
use crate::id::{HostId, InstanceId, MessageId};
use crate::message::{Kind, Message, aliases_of};
use crate::protection;
use crate::request::{Request, RequestFailed};
use crate::store::Subscription;
use crate::sync::time::timeout;
use crate::unit_of_work::Reason;

/// Stands where the kind of an instance does: a process asked. No saga can have this name.
const PROCESS: &str = "@process";
/// How long an answer is kept for another process of the service. A process that asked for longer
/// and is gone leaves a dead letter, so nothing is lost without a word.
const KEPT_FOR_OTHERS: Duration = Duration::from_secs(60);

/// Who waits in this process, and which endpoint takes which answers.
#[derive(Debug)]
pub(crate) struct Answers {
    host: HostId,
    endpoints: HashMap<String, EndpointName>,
    counters: Arc<Counters>,
    waiting: Mutex<Waiting>,
}

/// Who waits for the answer to each message: one that was sent again under its identity has several.
type Waiting = HashMap<MessageId, Vec<oneshot::Sender<Answered>>>;
type Answered = Result<Envelope, RequestFailed>;

impl Answers {
    /// Notes which endpoints take which types as answers.
    pub(crate) fn new(
        host: HostId,
        endpoints: HashMap<String, EndpointName>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            host,
            endpoints,
            counters,
            waiting: Mutex::default(),
        }
    }

    fn wait(self: &Arc<Self>, id: MessageId) -> Place {
        let (sender, answer) = oneshot::channel();
        self.lock().entry(id).or_default().push(sender);
        Place {
            answers: Arc::clone(self),
            id,
            answer,
        }
    }

    /// Takes an answer, or the news that there will be none.
    fn arrived(&self, envelope: &Envelope) -> Result<(), HandlerError> {
        let nobody = |text: &str| HandlerError::dead(Reason::NobodyAsked, text);
        let request = Request::read(&envelope.headers)
            .filter(|request| *request.instance.kind == *PROCESS)
            .ok_or_else(|| nobody("the answer names no question of a process"))?;
        let id: MessageId = request
            .name
            .parse()
            .map_err(|_| nobody("the answer names a question that is no message"))?;
        if *request.instance.key != *self.host.to_string() {
            let text = "another process of this service asked";
            let reason = Reason::NobodyAsked;
            return Err(HandlerError::elsewhere(reason, KEPT_FOR_OTHERS, text));
        }
        let answer = match envelope.message_type == failure_type() {
            true => match codec::decode(envelope) {
                Ok(failed) => Err(failed),
                Err(error) => return Err(HandlerError::from(error).terminal()),
            },
            false => Ok(envelope.clone()),
        };
        let waiting = self.lock().remove(&id).unwrap_or_default();
        let told = waiting.into_iter().map(|one| one.send(answer.clone()));
        if !told.fold(false, |any, told| any | told.is_ok()) {
            self.counters.late_answers.increment();
            tracing::debug!(%id, message_type = %envelope.message_type, "answer came when nobody waited any more");
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure_type() -> String {
    RequestFailed::type_for(PROCESS)
}

/// The place of one who waits; given up when dropped.
struct Place {
    answers: Arc<Answers>,
    id: MessageId,
    answer: oneshot::Receiver<Answered>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.answer.close();
        let mut waiting = self.answers.lock();
        if let Some(others) = waiting.get_mut(&self.id) {
            others.retain(|one| !one.is_closed());
            if others.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

/// Takes answers of one type, or the news of failures, for whoever waits.
pub(crate) struct AnswerSubscriber {
    message_type: Cow<'static, str>,
    aliases: &'static [&'static str],
    version: u32,
}

impl AnswerSubscriber {
    pub(crate) fn of<R: Message>() -> Self {
        Self {
            message_type: R::TYPE.into(),
            aliases: aliases_of::<R>(),
            version: R::VERSION,
        }
    }

    pub(crate) fn of_failures() -> Self {
        Self {
            message_type: failure_type().into(),
            aliases: &[],
            version: RequestFailed::VERSION,
        }
    }
}

impl Subscriber for AnswerSubscriber {
    fn subscription(&self) -> Subscription {
        Subscription {
            message_type: self.message_type.clone(),
            kind: Kind::Reply,
        }
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    fn name(&self) -> &'static str {
        "answers"
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }

    /// Whoever waits decodes it, and is told where that fails.
    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError> {
        Ok(Decoded {
            message: Box::new(envelope.clone()),
            instance: None,
            label: None,
        })
    }

    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        let taken = match message.downcast::<Envelope>() {
            Ok(envelope) => cx.answers().arrived(&envelope),
            Err(_) => Err(HandlerError::new("answer has another type").terminal()),
        };
        std::future::ready(taken).boxed()
    }
}

/// A request about to be made: set options, then wait [`within`](Self::within) a time.
#[must_use = "nothing is asked before `within` is awaited"]
#[derive(Debug)]
pub struct Requesting<'a, R> {
    sending: Sending<'a>,
    answer: PhantomData<fn() -> R>,
}

impl<'a, R: Message> Requesting<'a, R> {
    pub(crate) fn new(sending: Sending<'a>) -> Self {
        Self {
            sending,
            answer: PhantomData,
        }
    }

    /// Gives the command an identity of the caller's, for example that of an HTTP call that may be
    /// made again: it is sent once, and the answer goes to all who wait for it when it comes.
    pub fn with_id(self, id: MessageId) -> Self {
        Self::new(self.sending.with_id(id))
    }

    /// Sets the key that keeps order where the destination promises it.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self::new(self.sending.key(key))
    }

    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        Self::new(self.sending.header(name, value))
    }

    /// Sends the command and waits for its answer for up to `time`. A command that nobody has begun
    /// to handle by then is not handled any more: it has expired.
    ///
    /// # Errors
    /// [`RequestError::Failed`] when the command became a dead letter, with the reason;
    /// [`RequestError::TimedOut`] when no answer came in time: the command may have been handled,
    /// or still be; [`RequestError::Bus`] when it was not sent; [`RequestError::Answer`] when the
    /// answer cannot be decoded.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have sent. Its answer is counted as late.
    pub async fn within(self, time: Duration) -> Result<R, RequestError> {
        let (bus, facts, mut outgoing) = self.sending.into_request()?;
        let id = outgoing.envelope.id;
        let answers = &facts.answers;
        let endpoint = answers
            .endpoints
            .get(R::TYPE)
            .ok_or(BusError::NoAnswers { answer: R::TYPE })?;
        let address = facts.reply_address(endpoint, &outgoing);
        let headers = &mut outgoing.envelope.headers;
        headers.set(crate::headers::REPLY_TO, address);
        let request = Request {
            instance: InstanceId {
                kind: PROCESS.into(),
                key: answers.host.to_string().into(),
            },
            name: id.to_string(),
            generation: 0,
        };
        request.write(headers);
        let checked = outgoing.envelope.check();
        checked
            .and_then(|()| protection::seal(facts.protector.as_deref(), &mut outgoing))
            .map_err(BusError::from)?;
        outgoing.expires_after.get_or_insert(time);
        let mut place = answers.wait(id);
        let asked = async {
            bus.store_all(vec![outgoing]).await?;
            Ok::<_, BusError>((&mut place.answer).await)
        };
        match timeout(time, asked).await {
            Ok(Ok(Ok(Ok(answer)))) => codec::decode(&answer).map_err(RequestError::Answer),
            Ok(Ok(Ok(Err(failed)))) => Err(RequestError::Failed(failed)),
            Ok(Err(error)) => Err(error.into()),
            // Nobody drops the other end without an answer but a host that stops.
            Err(_) | Ok(Ok(Err(_))) => Err(RequestError::TimedOut { id, time }),
        }
    }
}
