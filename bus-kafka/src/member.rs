//! A replica's life in its group, on a thread of its own: it polls, commits what is done, and lets
//! partitions go in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagabus_core::error::TransportError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::KafkaConfig;
use crate::connection::{Connection, Watching};
use crate::consumer::Shared;
use crate::error::{is_away, shown};
use crate::headers;
use crate::queue::{Place, Record};
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
    let member = Member {
        connection: connection.clone(),
        shared,
        reads,
        group,
        cluster,
        membership: Arc::new(membership),
        last_error: None,
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
}

/// Why a member stopped polling.
#[derive(PartialEq, Eq)]
enum End {
    /// The subscription was dropped.
    Left,
    /// The group threw it out: a member with its name is there.
    ThrownOut,
}

impl Member {
    fn run(mut self, first: Polled) {
        let mut current = Some(first);
        while let Some(consumer) = current.take() {
            let end = self.live(&consumer);
            self.leave(&consumer);
            // Leaves the group; waits for the coordinator, if there is one.
            drop(consumer);
            if end == End::ThrownOut {
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
        let settings = settings(config, &self.group);
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
            let is_busy = leaves_at.is_none() && self.poll_queues(&queues);
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
                Some(Ok(record)) => self.push(&record),
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
    fn poll_queues(&mut self, queues: &HashMap<Place, (u64, PartitionQueue<Rebalancing>)>) -> bool {
        let mut has_more = false;
        for (_, queue) in queues.values() {
            for turn in 0..TURN {
                if self.shared.queue().waiting() >= self.shared.waiting_max {
                    return false;
                }
                match queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(record)) => self.push(&record),
                    Some(Err(error)) => self.note_error(&error),
                }
                has_more |= turn + 1 == TURN;
            }
        }
        has_more
    }

    fn push(&mut self, record: &BorrowedMessage<'_>) {
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
        self.shared.queue().push(record);
        self.shared.arrived();
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

fn settings(config: &KafkaConfig, group: &str) -> ClientConfig {
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
    if let Some(instance) = &config.instance {
        client.set("group.instance.id", instance);
    }
    client
}

fn list_of(done: &[(Place, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(done.len());
    for ((topic, partition), offset) in done {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

fn places_of(list: &TopicPartitionList) -> HashSet<Place> {
    let each = list.elements().into_iter();
    each.map(|one| (one.topic().to_owned(), one.partition()))
        .collect()
}

/// Commits and waits for the broker's word, unless no broker can be reached.
fn commit_now(
    consumer: &BaseConsumer<Rebalancing>,
    done: &[(Place, i64)],
    connection: &Connection,
) {
    if done.is_empty() || connection.link().is_down() {
        return;
    }
    let committed = list_of(done).and_then(|list| consumer.commit(&list, CommitMode::Sync));
    if let Err(error) = committed {
        // What is done comes again to whoever has the partition now, and is recognised.
        tracing::debug!(
            error = shown(&error),
            "offsets of partitions that go are not committed"
        );
    }
}

/// Hears of rebalances and commits. Called by `poll`, on the member's thread.
pub(crate) struct Rebalancing {
    watching: Watching,
    shared: Arc<Shared>,
    membership: Arc<watch::Sender<Membership>>,
    hand_over: Duration,
}

impl Rebalancing {
    /// Lets partitions go: their lanes finish, or are abandoned when the time is over; what is done
    /// is committed. Of partitions that are lost already nothing is.
    fn revoke(&self, consumer: &BaseConsumer<Self>, places: &HashSet<Place>) {
        let is_lost = consumer.assignment_lost();
        let mut queue = self.shared.queue();
        for place in places {
            queue.stop(place);
        }
        drop(queue);
        if !is_lost {
            self.wait_for(places);
            let done = self.shared.queue().to_commit_of(places);
            if let Some(connection) = self.watching.connection() {
                commit_now(consumer, &done, &connection);
            }
        }
        let mut queue = self.shared.queue();
        let abandoned = queue.in_hand_of(places.iter());
        for place in places {
            queue.forget(place);
        }
        drop(queue);
        if abandoned > 0 {
            let endpoint = &self.shared.endpoint;
            tracing::info!(%endpoint, abandoned, is_lost, "partitions went with deliveries in hand");
        }
    }

    fn wait_for(&self, places: &HashSet<Place>) {
        let deadline = Instant::now() + self.hand_over;
        self.shared.bell.await_settles(true);
        loop {
            let in_hand = self.shared.queue().in_hand_of(places.iter());
            let left = deadline.saturating_duration_since(Instant::now());
            if in_hand == 0 || left.is_zero() {
                break;
            }
            self.shared.bell.wait(left);
        }
        // While the subscription ends, every settle goes on being worth a ring.
        let has_stopped = self.shared.bell.has_stopped();
        self.shared.bell.await_settles(has_stopped);
    }
}

impl ClientContext for Rebalancing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.watching.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watching.error(error, reason);
    }
}

impl ConsumerContext for Rebalancing {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let places = places_of(list);
                let mut queue = self.shared.queue();
                for place in &places {
                    queue.assign(place.clone());
                }
                drop(queue);
                if self.shared.bell.has_stopped() {
                    self.shared.queue().stop_all();
                }
                if !places.is_empty() {
                    self.membership.send_replace(Membership::Joined);
                }
            }
            Rebalance::Revoke(list) => self.revoke(consumer, &places_of(list)),
            Rebalance::Error(error) => {
                tracing::debug!(
                    error = shown(error),
                    "a rebalance failed; the group tries again"
                );
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let failed: Vec<(Place, i64)> = offsets
            .elements()
            .iter()
            .filter(|one| result.is_err() || one.error().is_err())
            .map(|one| ((one.topic().to_owned(), one.partition()), 0))
            .collect();
        if !failed.is_empty() {
            let error = result.err().map(|error| shown(&error)).unwrap_or_default();
            tracing::debug!(
                error,
                "offsets were not committed; they are committed again"
            );
            self.shared.queue().commit_again(&failed);
        }
    }
}
