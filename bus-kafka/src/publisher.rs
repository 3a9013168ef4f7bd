//! Windows of records with the broker's word on each, by an idempotent producer.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use sagabus_core::error::TransportError;
use sagabus_core::headers::KIND;
use sagabus_core::message::Kind;
use sagabus_core::transport::Publication;
use tokio::sync::Notify;

use crate::config::{Creation, KafkaConfig};
use crate::connection::{Connection, Watching};
use crate::error::{ends_the_producer, of_record};
use crate::headers;
use crate::topology::{self, OVERHEAD_BYTES};

/// What waits in this process to be sent, at most: two windows of 500 records of 64 KiB. A window
/// of larger records goes out in parts.
const QUEUED_KIB_MAX: usize = 64 * 1024;
/// Records that share a request. A record larger than this goes alone, so that a topic that refuses
/// its size refuses nothing else.
const BATCH_BYTES: usize = 256 * 1024;
/// Between two looks at a queue that is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Beyond its time-out, which the library watches in steps of a second.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// Sends records. Clones share the producer.
#[derive(Clone)]
pub(crate) struct Publisher {
    connection: Connection,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    producer: Mutex<Option<Arc<Sender>>>,
    /// Topics that exist. A topic that is deleted leaves with the first record that it refuses.
    known: Mutex<HashSet<String>>,
}

type Sender = ThreadedProducer<Reports>;
type Answer = Result<(), TransportError>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publisher {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            shared: Arc::default(),
        }
    }

    /// Makes the producer, so that the first record does not wait for what it does first: librdkafka
    /// asks for a producer's identity half a second after it was made, whatever is to be sent.
    pub(crate) fn begin(&self) -> Result<(), TransportError> {
        self.producer().map(drop)
    }

    /// Publishes a window; one answer per publication, in order.
    pub(crate) async fn publish(&self, window: &[Publication]) -> Vec<Answer> {
        if window.is_empty() {
            return Vec::new();
        }
        if self.connection.link().is_down() {
            let away = || {
                self.connection
                    .unreachable("the publication waits for a broker")
            };
            return window.iter().map(|_| Err(away())).collect();
        }
        let missing = match self.find_topics(window).await {
            Ok(missing) => missing,
            Err(error) => return window.iter().map(|_| Err(again(&error))).collect(),
        };
        match self.producer() {
            Ok(producer) => self.send_all(&producer, window, &missing).await,
            Err(error) => window.iter().map(|_| Err(again(&error))).collect(),
        }
    }

    /// Looks up topics that were not met before, and creates those of events: an event may be
    /// published before anybody subscribes. Returns those that there are not.
    async fn find_topics(
        &self,
        window: &[Publication],
    ) -> Result<HashMap<String, TransportError>, TransportError> {
        let unknown = self.unknown_topics(window);
        if unknown.is_empty() {
            return Ok(HashMap::new());
        }
        let names: Vec<String> = unknown.keys().cloned().collect();
        let (mut there, mut missing) = self.connection.blocking(|one| look_up(one, names)).await?;
        for (name, is_event) in unknown {
            if there.contains(&name) || missing.contains_key(&name) {
                continue;
            }
            match self.create(&name, is_event).await {
                Ok(()) => {
                    there.insert(name);
                }
                Err(error) => {
                    missing.insert(name, error);
                }
            }
        }
        lock(&self.shared.known).extend(there);
        Ok(missing)
    }

    fn topic<'a>(&self, publication: &'a Publication) -> Cow<'a, str> {
        topology::topic_of(self.connection.config(), &publication.address)
    }

    /// The topics that were not met before, and whether an event goes there.
    fn unknown_topics(&self, window: &[Publication]) -> HashMap<String, bool> {
        let known = lock(&self.shared.known);
        let mut unknown: HashMap<String, bool> = HashMap::new();
        for one in window {
            let topic = self.topic(one);
            if known.contains(&*topic) {
                continue;
            }
            let is_event = one.envelope.headers.get(KIND) == Some(Kind::Event.as_str());
            *unknown.entry(topic.into_owned()).or_default() |= is_event;
        }
        unknown
    }

    async fn create(&self, name: &str, is_event: bool) -> Result<(), TransportError> {
        // The owner of a command makes its topic: where there is none, nobody would ever do it.
        let is_ours = is_event && self.connection.config().topics.creation != Creation::Never;
        if !is_ours {
            let address = name.to_owned();
            return Err(TransportError::Unroutable { address });
        }
        topology::create(&self.connection, &[name.to_owned()]).await
    }

    fn producer(&self) -> Result<Arc<Sender>, TransportError> {
        let mut slot = lock(&self.shared.producer);
        if let Some(producer) = &*slot {
            return Ok(Arc::clone(producer));
        }
        let reports = Reports {
            watching: self.connection.watching(),
        };
        let settings = settings(self.connection.config());
        let producer: Sender = self.connection.client(settings, reports)?;
        Ok(Arc::clone(slot.insert(Arc::new(producer))))
    }

    async fn send_all(
        &self,
        producer: &Arc<Sender>,
        window: &[Publication],
        missing: &HashMap<String, TransportError>,
    ) -> Vec<Answer> {
        let answers = Arc::new(Answers::new(window.len()));
        for (index, one) in window.iter().enumerate() {
            let refused = missing
                .get(&*self.topic(one))
                .map(|error| refusal(error, &one.address))
                .or_else(|| self.too_large(one));
            if let Some(error) = refused {
                answers.set(index, Err(error));
                continue;
            }
            self.send(producer, one, index, &answers).await;
        }
        let patience = self.connection.config().delivery_timeout + REPORT_GRACE;
        // What is still without an answer then is unknown, which is what it was filled with.
        let _ = tokio::time::timeout(patience, answers.all_there()).await;
        let answers = answers.take();
        self.learn(producer, window, &answers);
        answers
    }

    async fn send(
        &self,
        producer: &Sender,
        one: &Publication,
        index: usize,
        answers: &Arc<Answers>,
    ) {
        let slot = Box::new(Slot {
            answers: Arc::clone(answers),
            index,
            address: one.address.clone(),
        });
        let topic = self.topic(one);
        let mut record = BaseRecord::with_opaque_to(&topic, slot)
            .payload(&one.envelope.body[..])
            .headers(headers::of(one));
        if let Some(key) = &one.key {
            record = record.key(key.as_bytes());
        }
        loop {
            match producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(Code::QueueFull), same)) => {
                    record = same;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err((error, _)) => return answers.set(index, Err(of_record(&error, &one.address))),
            }
        }
    }

    fn too_large(&self, one: &Publication) -> Option<TransportError> {
        let most = self.connection.config().body_bytes_max;
        let bytes = one.envelope.body.len();
        (bytes > most).then(|| {
            TransportError::Refused(format!("body of {bytes} bytes is larger than {most}"))
        })
    }

    /// Draws conclusions from the answers: a topic that is gone is no longer known, and a producer
    /// with an outcome in doubt is replaced, because what it still has is in doubt as well.
    fn learn(&self, producer: &Arc<Sender>, window: &[Publication], answers: &[Answer]) {
        let mut is_broken = producer.client().fatal_error().is_some();
        for (one, answer) in window.iter().zip(answers) {
            let Err(error) = answer else { continue };
            is_broken |= ends_the_producer(error);
            if matches!(error, TransportError::Unroutable { .. }) {
                lock(&self.shared.known).remove(&*self.topic(one));
            }
        }
        if !is_broken {
            return;
        }
        let mut slot = lock(&self.shared.producer);
        if slot
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, producer))
        {
            tracing::debug!("a Kafka producer with an outcome in doubt is replaced");
            let old = slot.take();
            drop(slot);
            self.let_go(old);
        }
    }

    /// Closes the producer.
    pub(crate) fn close(&self) {
        let producer = lock(&self.shared.producer).take();
        self.let_go(producer);
    }

    /// Drops a producer on a thread: it waits for its own, and for what it had under way.
    fn let_go(&self, producer: Option<Arc<Sender>>) {
        if producer.is_none() {
            return;
        }
        let lifecycle = self.connection.lifecycle();
        let dropped = lifecycle.spawn_thread("kafka-drop", move || drop(producer));
        if let Err(error) = dropped {
            tracing::warn!(%error, "no thread to close a Kafka producer");
        }
    }
}

/// Finds which topics exist. One that cannot be used is an error of its own records alone. Blocks.
fn look_up(
    connection: &Connection,
    names: Vec<String>,
) -> Result<(HashSet<String>, HashMap<String, TransportError>), TransportError> {
    let (mut there, mut refused) = (HashSet::new(), HashMap::new());
    for name in names {
        match topology::look_up(connection, &name) {
            Ok(Some(_)) => {
                there.insert(name);
            }
            Ok(None) => {}
            Err(error @ (TransportError::Setup(_) | TransportError::Refused(_))) => {
                refused.insert(name, error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((there, refused))
}

/// Says of a record what was said of its topic.
fn refusal(error: &TransportError, address: &str) -> TransportError {
    match error {
        TransportError::Unroutable { .. } => TransportError::Unroutable {
            address: address.to_owned(),
        },
        // Of this one topic: trying others goes on, and an operator is asked in the end.
        TransportError::Setup(text) => TransportError::Refused(text.clone()),
        other => again(other),
    }
}

/// Says the same error again: an answer is not shared.
fn again(error: &TransportError) -> TransportError {
    match error {
        TransportError::Unroutable { address } => TransportError::Unroutable {
            address: address.clone(),
        },
        TransportError::Refused(text) => TransportError::Refused(text.clone()),
        TransportError::Unknown(source) => TransportError::Unknown(source.to_string().into()),
        // What is set up wrong may be put right; the message waits.
        other => TransportError::Unavailable(sagabus_core::error::chain(other).into()),
    }
}

fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut client = config.client();
    let record_bytes = config.body_bytes_max + OVERHEAD_BYTES;
    client
        // No record twice and none out of order, whatever is tried again inside the library.
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        .set(
            "message.timeout.ms",
            config.delivery_timeout.as_millis().to_string(),
        )
        // A window is handed over at once: waiting for more would only delay it.
        .set("linger.ms", "0")
        .set("batch.size", BATCH_BYTES.to_string())
        .set("message.max.bytes", record_bytes.to_string())
        .set("queue.buffering.max.kbytes", QUEUED_KIB_MAX.to_string())
        // A key's partition as every Java client computes it.
        .set("partitioner", "murmur2_random")
        // Records without a key go to any partition, each by itself.
        .set("sticky.partitioning.linger.ms", "0")
        // A topic that was looked up exists: not finding it is soon an answer.
        .set("topic.metadata.propagation.max.ms", "5000");
    client
}

/// The answers of one window, as they come.
struct Answers {
    all: Mutex<Vec<Answer>>,
    left: AtomicUsize,
    is_whole: Notify,
}

impl Answers {
    fn new(count: usize) -> Self {
        let unknown = || Err(TransportError::Unknown("no answer came in time".into()));
        Self {
            all: Mutex::new((0..count).map(|_| unknown()).collect()),
            left: AtomicUsize::new(count),
            is_whole: Notify::new(),
        }
    }

    fn set(&self, index: usize, answer: Answer) {
        if let Some(place) = lock(&self.all).get_mut(index) {
            *place = answer;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.is_whole.notify_one();
        }
    }

    async fn all_there(&self) {
        // The permit of a notification is kept, so one that comes in between is not missed.
        while self.left.load(Ordering::Acquire) > 0 {
            self.is_whole.notified().await;
        }
    }

    fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut *lock(&self.all))
    }
}

/// Where a record's answer goes.
struct Slot {
    answers: Arc<Answers>,
    index: usize,
    address: String,
}

/// Hears the broker's word on each record.
struct Reports {
    watching: Watching,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.watching.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watching.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        let answer = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(of_record(error, &slot.address)),
        };
        slot.answers.set(slot.index, answer);
    }
}
