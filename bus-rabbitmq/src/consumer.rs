//! Deliveries in: one channel per endpoint, acks after the commit, a new channel when one is lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use sagabus_core::backoff::Backoff;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::TransportError;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::transport::{Delivery, Settler, Verdict};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::Link;
use crate::error::{Refusal, refusal, unavailable};
use crate::headers;
use crate::in_hand::{InHand, Step};
use crate::transport::Outages;

/// Answers that are taken from the handlers at once, and then sent as ranges where they can be.
const ANSWERS_AT_ONCE: usize = 256;
/// Nothing to wait for but an event.
const LONG: Duration = Duration::from_secs(3600);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What an endpoint's replica receives from.
pub(crate) struct Receiver {
    pub(crate) link: Arc<Link>,
    pub(crate) endpoint: EndpointName,
    pub(crate) order: Order,
    pub(crate) queues: Vec<String>,
    pub(crate) prefetch: u32,
    /// Declares the endpoint again before it is received for again.
    pub(crate) redeclare: Redeclare,
    pub(crate) outages: Arc<Outages>,
    pub(crate) streams: Arc<Streams>,
}

/// The streams that there are, to wait for those that are dropped.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Vec<(watch::Receiver<()>, watch::Receiver<()>)>>);

/// One stream: its two parts go to whom it is named after, and are dropped by them.
struct Open {
    stream: watch::Sender<()>,
    task: watch::Sender<()>,
}

impl Streams {
    fn opened(&self) -> Open {
        let (stream, has_stream) = watch::channel(());
        let (task, has_task) = watch::channel(());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, task)| task.has_changed().is_ok());
        all.push((has_stream, has_task));
        Open { stream, task }
    }

    /// Waits until everything that came by dropped streams is answered.
    pub(crate) async fn left(&self) {
        let all = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (stream, mut task) in all {
            while stream.has_changed().is_err() && task.changed().await.is_ok() {}
        }
    }
}

/// Makes sure, after an outage, that everything is still there.
pub(crate) type Redeclare =
    Arc<dyn Fn() -> BoxFuture<'static, Result<(), TransportError>> + Send + Sync>;

/// An answer of a handler: which delivery, what, and who waits until it is sent.
type Answer = (u64, Answered, Option<oneshot::Sender<()>>);

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Ack,
    RetryAfter(Duration),
    Dropped,
}

impl Receiver {
    /// Opens the first channel, then receives on a task of its own until the stream is dropped.
    pub(crate) async fn subscribe(
        self,
        lifecycle: &Lifecycle,
    ) -> Result<BoxStream<'static, Delivery>, TransportError> {
        let receiver = &self;
        let session = self
            .link
            .ask(|connection| async move { receiver.open(connection).await });
        let session = session.await?;
        // Unbounded, because the broker sends no more than `prefetch` before they are answered.
        let (deliveries, stream) = mpsc::unbounded_channel();
        let open = self.streams.opened();
        let alive = open.stream;
        lifecycle.spawn(async move {
            let _open = open.task;
            self.run(session, deliveries).await;
        });
        let stream = stream::unfold((stream, alive), |(mut stream, alive)| async move {
            let delivery = stream.recv().await?;
            Some((delivery, (stream, alive)))
        });
        Ok(stream.boxed())
    }

    async fn run(self, first: Session, deliveries: mpsc::UnboundedSender<Delivery>) {
        let mut session = Some(first);
        let mut outage = Backoff::new("receive from RabbitMQ");
        loop {
            let failure = match session.take() {
                Some(mut open) => match open.receive(&deliveries).await {
                    Some(error) => error,
                    None => return open.leave().await,
                },
                None => match self.reopen(&deliveries).await {
                    Some(Ok(open)) => {
                        outage.ended();
                        self.outages.ended(&self.endpoint);
                        session = Some(open);
                        continue;
                    }
                    Some(Err(error)) => error,
                    None => return,
                },
            };
            self.outages.began(&self.endpoint, &failure.to_string());
            if !self.link.is_connected() {
                // The connection's outage, which is logged once and not by every endpoint.
                continue;
            }
            tokio::select! {
                () = outage.failed(&failure) => {}
                () = deliveries.closed() => return,
            }
        }
    }

    /// Waits for the connection and opens a channel again; `None` when nobody wants it any more.
    async fn reopen(
        &self,
        deliveries: &mpsc::UnboundedSender<Delivery>,
    ) -> Option<Result<Session, TransportError>> {
        let reopen = async {
            self.link.connected().await?;
            let open = |connection| async move { self.open(connection).await };
            Some(match (self.redeclare)().await {
                Ok(()) => self.link.ask(open).await,
                Err(error) => Err(error),
            })
        };
        tokio::select! {
            reopened = reopen => reopened,
            () = deliveries.closed() => None,
        }
    }

    async fn open(&self, connection: Arc<Connection>) -> Result<Session, TransportError> {
        let channel = connection.create_channel().await;
        let channel = channel.map_err(|error| unavailable(&error))?;
        // Of each queue; together at most what was asked for, where there are enough for all.
        let queues = u32::try_from(self.queues.len()).unwrap_or(u32::MAX).max(1);
        let share = (self.prefetch / queues).max(1);
        let share = u16::try_from(share).unwrap_or(u16::MAX);
        let limited = channel.basic_qos(share, BasicQosOptions::default()).await;
        limited.map_err(|error| unavailable(&error))?;
        let mut consumers = SelectAll::new();
        for queue in &self.queues {
            let queue = queue.as_str();
            let options = BasicConsumeOptions::default();
            let consuming =
                channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
            let consumer = consuming.await.map_err(|error| self.explain(&error))?;
            consumers.push(consumer);
        }
        let (answers, answered) = mpsc::unbounded_channel();
        Ok(Session {
            link: Arc::clone(&self.link),
            connection,
            endpoint: self.endpoint.clone(),
            in_hand: InHand::new(self.order),
            channel,
            consumers,
            answers,
            answered,
            waiting: BTreeSet::new(),
        })
    }

    fn explain(&self, error: &lapin::Error) -> TransportError {
        let endpoint = &self.endpoint;
        match refusal(error) {
            (Refusal::Missing, _) => TransportError::Setup(format!(
                "endpoint `{endpoint}` is not declared on the broker; declare it before subscribing [SB0224]"
            )),
            (Refusal::Forbidden, said) => TransportError::Setup(format!(
                "this user may not read the queue of endpoint `{endpoint}` ({said}); permit it with \
                 `rabbitmqctl set_permissions` [SB0220]"
            )),
            _ => unavailable(error),
        }
    }
}

/// One channel, with what came on it. Its tags mean nothing on another one.
struct Session {
    link: Arc<Link>,
    connection: Arc<Connection>,
    endpoint: EndpointName,
    channel: Channel,
    consumers: SelectAll<Consumer>,
    in_hand: InHand,
    answers: mpsc::UnboundedSender<Answer>,
    answered: mpsc::UnboundedReceiver<Answer>,
    /// Deliveries to give back when their time has come.
    waiting: BTreeSet<(Instant, u64)>,
}

impl Session {
    /// Receives until the channel is lost, or until nobody wants more: then `None`.
    async fn receive(
        &mut self,
        deliveries: &mpsc::UnboundedSender<Delivery>,
    ) -> Option<TransportError> {
        let mut batch = Vec::with_capacity(ANSWERS_AT_ONCE);
        loop {
            let due = self.waiting.first().map(|(at, _)| *at);
            let due = due.unwrap_or_else(|| Instant::now() + LONG);
            let result = tokio::select! {
                biased;
                _ = self.answered.recv_many(&mut batch, ANSWERS_AT_ONCE) => {
                    self.answer(&mut batch).await
                }
                () = sleep_until(due) => self.give_back_due().await,
                delivery = self.consumers.next() => match delivery {
                    Some(Ok(delivery)) => {
                        let tag = delivery.delivery_tag;
                        self.in_hand.arrived(tag, headers::read(delivery));
                        Ok(())
                    }
                    Some(Err(error)) => Err(error),
                    None => return Some(ended()),
                },
                () = deliveries.closed() => return None,
                error = self.link.lost(&self.connection) => return Some(error),
            };
            if let Err(error) = result {
                return Some(unavailable(&error));
            }
            if !self.channel.status().connected() {
                return Some(ended());
            }
            while let Some((tag, read)) = self.in_hand.next() {
                let delivery = Delivery::new(
                    self.endpoint.clone(),
                    read.envelope,
                    read.redeliveries,
                    Box::new(RabbitSettler {
                        tag,
                        answers: Some(self.answers.clone()),
                    }),
                );
                if deliveries.send(delivery).is_err() {
                    return None;
                }
            }
        }
    }

    /// Sends answers: acks of everything up to a tag as one, the others one by one.
    async fn answer(&mut self, batch: &mut Vec<Answer>) -> lapin::Result<()> {
        let mut heard = Vec::new();
        let mut acked = Vec::new();
        for (tag, answered, waits) in batch.drain(..) {
            heard.extend(waits);
            match answered {
                Answered::Ack => acked.push(tag),
                Answered::RetryAfter(delay) => self.retry(tag, delay).await?,
                Answered::Dropped => self.retry(tag, Duration::ZERO).await?,
            }
        }
        for step in self.in_hand.acked(acked) {
            let (tag, multiple) = match step {
                Step::UpTo(tag) => (tag, true),
                Step::One(tag) => (tag, false),
            };
            self.channel
                .basic_ack(tag, BasicAckOptions { multiple })
                .await?;
        }
        for waits in heard {
            let _ = waits.send(()); // A handler that was dropped waits no longer.
        }
        Ok(())
    }

    async fn retry(&mut self, tag: u64, delay: Duration) -> lapin::Result<()> {
        self.in_hand.returned(tag);
        if delay.is_zero() {
            return self.give_back(tag).await;
        }
        self.waiting.insert((Instant::now() + delay, tag));
        Ok(())
    }

    async fn give_back_due(&mut self) -> lapin::Result<()> {
        let now = Instant::now();
        while let Some((at, tag)) = self.waiting.pop_first() {
            if at > now {
                self.waiting.insert((at, tag));
                break;
            }
            self.give_back(tag).await?;
        }
        Ok(())
    }

    /// Gives a delivery back: to the broker, or, where order is promised, to its place here, because
    /// what the broker has sent already would overtake it.
    async fn give_back(&mut self, tag: u64) -> lapin::Result<()> {
        if self.in_hand.again(tag) {
            return Ok(());
        }
        // `reject` counts as a delivery that failed; `nack` does not on every version.
        self.channel
            .basic_reject(tag, BasicRejectOptions { requeue: true })
            .await
    }

    /// Takes nothing more, and waits for the answers to what is in hand.
    async fn leave(mut self) {
        self.in_hand.leave();
        // Where order is promised the broker must not go on elsewhere before that: another replica
        // would get what comes after it.
        if self.in_hand.order() == Order::Unordered && self.cancel().await.is_err() {
            return;
        }
        let mut batch = Vec::new();
        while self.in_hand.is_given_out() {
            tokio::select! {
                _ = self.answered.recv_many(&mut batch, ANSWERS_AT_ONCE) => {}
                _ = self.link.lost(&self.connection) => return,
            }
            if self.answer(&mut batch).await.is_err() {
                return;
            }
        }
        // What was never given out goes back to its place with the channel.
        let _ = timeout(CLOSE_MAX, self.channel.close(200, "OK".into())).await;
    }

    async fn cancel(&self) -> lapin::Result<()> {
        let tags: Vec<_> = self.consumers.iter().map(Consumer::tag).collect();
        for tag in tags {
            let options = BasicCancelOptions::default();
            self.channel.basic_cancel(tag, options).await?;
        }
        Ok(())
    }
}

fn ended() -> TransportError {
    let fact = "the broker closed the channel, for example because an answer took too long";
    TransportError::Unavailable(fact.into())
}

/// Answers one delivery; dropped unused, it gives the message back.
struct RabbitSettler {
    tag: u64,
    answers: Option<mpsc::UnboundedSender<Answer>>,
}

impl Settler for RabbitSettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        let Some(answers) = self.answers.take() else {
            return future::ready(()).boxed();
        };
        let answered = match verdict {
            Verdict::Ack => Answered::Ack,
            Verdict::RetryAfter(delay) => Answered::RetryAfter(delay),
        };
        let (sender, sent) = oneshot::channel();
        let tag = self.tag;
        async move {
            if answers.send((tag, answered, Some(sender))).is_ok() {
                // A channel that is lost meanwhile sends nothing: the message comes again.
                let _ = sent.await;
            }
        }
        .boxed()
    }
}

impl Drop for RabbitSettler {
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            // On a lost channel the broker has taken the message back already.
            let _ = answers.send((self.tag, Answered::Dropped, None));
        }
    }
}
