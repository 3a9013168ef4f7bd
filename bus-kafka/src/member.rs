//! A replica's life in its group, on a thread of its own: it polls, commits what is done, and lets
//! partitions go in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use sagabus_core::error::TransportError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::commits::{begin, commit_now, list_of, look};
use crate::config::KafkaConfig;
use crate::connection::Connection;
use crate::consumer::Shared;
use crate::error::{is_away, shown};
use crate::headers;
use crate::orphans::{self, Orphans};
use crate::queue::{Place, Record};
use crate::rebalance::Rebalancing;
use crate::standstill::Watch;
use crate::topology::{OVERHEAD_BYTES, Reads};

/// How often what is done is committed. What a crash leaves uncommitted comes again and is
/// recognised, so this is a matter of work, not of safety.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// The longest sleep without a ring. Rings that got lost cost this much.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Records that one partition may give in a row, so that all get their turn.
const TURN: usize = 64;
/// How long a subscription that was dropped waits for what is in hand.
const LEAVE_WAIT: Duration = Duration::from_secs(30);
/// Before a member that the group threw out tries again.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);
/// What the library fetches ahead. What it has beyond our own waiting room is lost work when a
/// partition goes.
const FETCHED_KIB_MAX: usize = 16 * 1024;

/// Whether a subscription is part of its group.
#[derive(Debug)]
pub(crate) enum Membership {
    Joining,
    Joined,
    /// The group or a topic cannot be used. The text says what to do.
    Refused(String),
}

/// Starts a member. It ends some time after the bell was told to stop.
pub(crate) fn start(
    connection: &Connection,
    shared: Arc<Shared>,
    reads: Reads,
    group: String,
    cluster: String,
    membership: watch::Sender<Membership>,
) -> Result<(), TransportError> {
    let config = connection.config();
    let member = Member {
        connection: connection.clone(),
        shared,
        reads,
        group,
        cluster,
        membership: Arc::new(membership),
        last_error: None,
        watch: Watch::new(),
        instance: config.instance.clone(),
        orphans: Orphans::new(config),
    };
    // Made here, so that a setting that is refused is an error of the subscription.
    let consumer = member.consumer()?;
    let name = format!("kafka-{}", member.group);
    let started = connection
        .lifecycle()
        .spawn_thread(&name, move || member.run(consumer));
    started.map_err(|error| TransportError::Unavailable(error.into()))
}

type Polled = Arc<BaseConsumer<Rebalancing>>;

struct Member {
    connection: Connection,
    shared: Arc<Shared>,
    reads: Reads,
    group: String,
    cluster: String,
    membership: Arc<watch::Sender<Membership>>,
    /// Said once, until something goes well.
    last_error: Option<Code>,
    watch: Watch,
    /// The name under which it joins; `None` from when the group had to be divided anew.
    instance: Option<String>,
    orphans: Orphans,
}

/// Why a member stopped polling.
#[derive(PartialEq, Eq)]
enum End {
    /// The subscription was dropped.
    Left,
    /// The group threw it out: a member with its name is there.
    ThrownOut,
    /// Its client brings no records, though there are some.
    StoodStill,
    /// A partition is nobody's, and joining under no name makes the group divide all again.
    LeftOver,
}

impl Member {
    fn run(mut self, first: Polled) {
        let mut current = Some(first);
        while let Some(consumer) = current.take() {
            let end = self.live(&consumer);
            self.leave(&consumer);
            // Leaves the group; waits for the coordinator, if there is one.
            drop(consumer);
            if end == End::LeftOver {
                self.instance = None;
            }
            if end != End::Left {
                current = self.next_life();
            }
        }
        self.shared.bell.finished();
    }

    /// Makes a new client after a pause; `None` where the subscription was dropped meanwhile.
    fn next_life(&self) -> Option<Polled> {
        loop {
            self.shared.bell.wait(REJOIN_PAUSE);
            if self.shared.bell.has_stopped() {
                return None;
            }
            match self.consumer() {
                Ok(consumer) => return Some(consumer),
                Err(error) => tracing::warn!(%error, "no new Kafka client; trying again"),
            }
        }
    }

    fn consumer(&self) -> Result<Polled, TransportError> {
        let config = self.connection.config();
        let context = Rebalancing {
            watching: self.connection.watching(),
            shared: Arc::clone(&self.shared),
            membership: Arc::clone(&self.membership),
            hand_over: config.hand_over,
        };
        let settings = settings(config, &self.group, self.instance.as_deref());
        let mut consumer: BaseConsumer<Rebalancing> = self.connection.client(settings, context)?;
        let shared = Arc::clone(&self.shared);
        consumer.set_nonempty_callback(move || shared.bell.ring());
        let topics: Vec<&str> = self.reads.topics.keys().map(String::as_str).collect();
        let subscribed = consumer.subscribe(&topics);
        subscribed.map_err(|error| TransportError::Setup(shown(&error)))?;
        Ok(Arc::new(consumer))
    }

    /// Polls until the subscription is dropped and nothing of it is in hand, or the group throws
    /// this member out.
    fn live(&mut self, consumer: &Polled) -> End {
        let mut queues: HashMap<Place, (u64, PartitionQueue<Rebalancing>)> = HashMap::new();
        let mut commit_at = Instant::now();
        let mut leaves_at: Option<Instant> = None;
        loop {
            if self.poll_events(consumer) == Some(End::ThrownOut) {
                return End::ThrownOut;
            }
            self.split(consumer, &mut queues);
            // What came before the split is older than what comes after it.
            if self.poll_events(consumer) == Some(End::ThrownOut) {
                return End::ThrownOut;
            }
            let is_busy = leaves_at.is_none() && self.poll_queues(consumer, &queues);
            if commit_at <= Instant::now() {
                self.commit(consumer);
                commit_at = Instant::now() + COMMIT_EVERY;
            }
            if self.shared.bell.has_stopped() {
                let deadline = *leaves_at.get_or_insert_with(|| {
                    self.shared.bell.await_settles(true);
                    self.shared.queue().stop_all();
                    Instant::now() + LEAVE_WAIT
                });
                let places = self.shared.queue().terms();
                let in_hand = self.shared.queue().in_hand_of(places.keys());
                if in_hand == 0 || Instant::now() >= deadline {
                    return End::Left;
                }
            }
            if leaves_at.is_none() && self.stands_still(consumer) {
                return End::StoodStill;
            }
            if leaves_at.is_none() && self.finds_orphans(consumer) {
                return End::LeftOver;
            }
            if !is_busy {
                self.shared.bell.wait(LOOK_EVERY);
            }
        }
    }

    /// Hears everything that is not a record of a split queue. Rebalances happen in here.
    fn poll_events(&mut self, consumer: &Polled) -> Option<End> {
        // Nothing to hear says `None`, and so does an event; the last one may have been an event.
        let mut quiet = 0;
        while quiet < 2 {
            match consumer.poll(Duration::ZERO) {
                None => quiet += 1,
                Some(Ok(record)) => self.push(consumer, &record),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    self.note(code);
                    return Some(End::ThrownOut);
                }
                Some(Err(error)) => self.note_error(&error),
            }
        }
        None
    }

    /// Gives each partition a queue of its own: one that is not polled is not fetched further,
    /// which is the back-pressure, and costs nothing that was fetched already.
    fn split(
        &self,
        consumer: &Polled,
        queues: &mut HashMap<Place, (u64, PartitionQueue<Rebalancing>)>,
    ) {
        let terms = self.shared.queue().terms();
        queues.retain(|place, (term, _)| terms.get(place) == Some(term));
        for (place, term) in terms {
            if queues.contains_key(&place) {
                continue;
            }
            let Some(mut queue) = consumer.split_partition_queue(&place.0, place.1) else {
                continue; // The partition's records come by the common queue then.
            };
            let shared = Arc::clone(&self.shared);
            queue.set_nonempty_callback(move || shared.bell.ring());
            queues.insert(place, (term, queue));
        }
    }

    /// Takes records where there is room. Returns whether there may be more.
    fn poll_queues(
        &mut self,
        consumer: &Polled,
        queues: &HashMap<Place, (u64, PartitionQueue<Rebalancing>)>,
    ) -> bool {
        let mut has_more = false;
        for (_, queue) in queues.values() {
            for turn in 0..TURN {
                if self.shared.queue().is_full() {
                    return false;
                }
                match queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(record)) => self.push(consumer, &record),
                    Some(Err(error)) => self.note_error(&error),
                }
                has_more |= turn + 1 == TURN;
            }
        }
        has_more
    }

    fn push(&mut self, consumer: &Polled, record: &BorrowedMessage<'_>) {
        let Some(types) = self.reads.topics.get(record.topic()) else {
            return;
        };
        let understood = headers::read(record, &self.cluster, types.implied());
        let message = understood
            .filter(|understood| !types.passes_over(&understood.envelope.message_type))
            .map(|understood| (understood.envelope, understood.key));
        if message.is_none() {
            self.connection.pass_over();
        }
        let record = Record {
            place: (record.topic().to_owned(), record.partition()),
            offset: record.offset(),
            message,
        };
        self.last_error = None;
        let is_first = self.shared.queue().is_first(&record.place);
        if is_first {
            let before = begin(consumer, &record.place, record.offset);
            self.shared.queue().begun(&record.place, before);
        }
        self.shared.queue().push(record);
        self.shared.arrived();
    }

    /// Looks now and then whether records wait that the client does not bring.
    fn stands_still(&mut self, consumer: &Polled) -> bool {
        if !self.watch.is_due() {
            return false;
        }
        if self.connection.link().is_down() {
            self.watch.begin_anew();
            return false;
        }
        let idle = self.shared.queue().idle();
        let Some(idle) = self.watch.note(idle) else {
            return false;
        };
        let Ok(seen) = look(consumer, &idle) else {
            return false; // A broker that does not answer has nothing to bring.
        };
        let stands_still = self.watch.stands_still(&idle.place, seen);
        if stands_still {
            let (endpoint, (topic, partition)) = (&self.shared.endpoint, &idle.place);
            let waiting = seen.end - seen.position;
            tracing::warn!(%endpoint, topic, partition, waiting, "a Kafka client brings no records though there are some; a new one is made");
        }
        stands_still
    }

    /// Looks now and then whether a partition is nobody's, and says whether this replica is to have
    /// the group divided again. Only where replicas have names that can happen.
    fn finds_orphans(&mut self, consumer: &Polled) -> bool {
        let Some(instance) = self.instance.as_deref() else {
            return false;
        };
        if !self.orphans.is_due() {
            return false;
        }
        let looked = match self.connection.link().is_down() {
            true => Ok(None),
            false => orphans::look(consumer, &self.group, instance, &self.reads),
        };
        if let Err(error) = &looked {
            let group = &self.group;
            tracing::debug!(group, error = shown(error), "a group is looked at later");
        }
        let look = looked.ok().flatten();
        let first = look.as_ref().and_then(|look| look.orphans.first().cloned());
        let acts = self.orphans.note(look);
        if let (true, Some((topic, partition))) = (acts, first) {
            let (endpoint, group) = (&self.shared.endpoint, &self.group);
            tracing::warn!(%endpoint, group, topic, partition, "a Kafka group left a partition to nobody; this replica joins again without its `instance`, so that all is divided anew");
        }
        acts
    }

    fn commit(&self, consumer: &Polled) {
        let mut queue = self.shared.queue();
        let done = queue.to_commit();
        if done.is_empty() {
            return;
        }
        for (place, offset) in &done {
            queue.committed(place, *offset);
        }
        drop(queue);
        let Ok(list) = list_of(&done) else { return };
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(error = shown(&error), "offsets are committed later");
            self.shared.queue().commit_again(&done);
        }
    }

    /// Commits what is done and lets go of everything.
    fn leave(&self, consumer: &Polled) {
        let mut queue = self.shared.queue();
        let done = queue.to_commit();
        queue.forget_all();
        drop(queue);
        commit_now(consumer, &done, &self.connection);
        self.shared.bell.await_settles(false);
    }

    fn note_error(&mut self, error: &KafkaError) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(code);
        }
    }

    /// Says an error once, and tells the subscription if it cannot join at all.
    fn note(&mut self, code: Code) {
        if self.last_error == Some(code) || is_away(code) || code == Code::NoError {
            return;
        }
        self.last_error = Some(code);
        let (endpoint, group) = (&self.shared.endpoint, &self.group);
        let remedy = remedy(code);
        tracing::warn!(%endpoint, group, error = %code, remedy, "a Kafka group has a problem");
        if remedy.is_empty() {
            return;
        }
        self.membership.send_if_modified(|membership| {
            let is_joining = matches!(membership, Membership::Joining);
            if is_joining {
                let fact = format!(
                    "endpoint `{endpoint}` cannot join its group `{group}`: {code}; {remedy}"
                );
                *membership = Membership::Refused(fact);
            }
            is_joining
        });
    }
}

/// What a person can do about an error of a group; empty where waiting helps.
fn remedy(code: Code) -> &'static str {
    match code {
        Code::GroupAuthorizationFailed => "allow this user to READ the group",
        Code::TopicAuthorizationFailed => "allow this user to READ and DESCRIBE the topics",
        Code::InconsistentGroupProtocol => {
            "its members must all use `cooperative-sticky`; stop the others, or choose another \
             endpoint name or prefix"
        }
        Code::InvalidSessionTimeout => {
            "set `session` within the broker's `group.min.session.timeout.ms` and \
             `group.max.session.timeout.ms`"
        }
        Code::InvalidGroupId => "choose another endpoint name or prefix",
        Code::FencedInstanceId | Code::UnreleasedInstanceId => {
            "another replica has the same `instance`; give each its own"
        }
        Code::GroupMaxSizeReached => "raise the broker's `group.max.size`, or run fewer replicas",
        _ => "",
    }
}

fn settings(config: &KafkaConfig, group: &str, instance: Option<&str>) -> ClientConfig {
    let mut client = config.client();
    client
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", config.session.as_millis().to_string())
        .set(
            "heartbeat.interval.ms",
            config.heartbeat.as_millis().to_string(),
        )
        .set(
            "max.poll.interval.ms",
            config.poll_interval_max.as_millis().to_string(),
        )
        // Only what has been acked is committed, and only by us.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A group that has no offset begins at the oldest: nothing is lost.
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", FETCHED_KIB_MAX.to_string())
        .set("queued.min.messages", "10000")
        .set(
            "fetch.message.max.bytes",
            (config.body_bytes_max + OVERHEAD_BYTES).to_string(),
        )
        // An empty fetch is soon asked again, so that a low load waits for nothing.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100");
    if let Some(instance) = instance {
        client.set("group.instance.id", instance);
    }
    client
}
