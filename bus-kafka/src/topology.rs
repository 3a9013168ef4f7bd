//! Which topics there are: one per message type (or family), one per endpoint for what is sent to
//! it directly. Created or checked, never loosened.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use rdkafka::admin::{
    AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr;
use sagabus_core::endpoint::EndpointName;
use sagabus_core::error::TransportError;
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use tokio::time::Instant;

use crate::config::{Creation, KafkaConfig, Kept};
use crate::connection::Connection;
use crate::error::shown;

/// What Kafka allows.
const NAME_BYTES_MAX: usize = 249;
/// Between two looks for a topic that was just created.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Ends the name of an endpoint's own topic.
const ENDPOINT: &str = ".endpoint";
/// What a record may be larger than its body: key, headers (8 KiB) and the frame of its batch.
pub(crate) const OVERHEAD_BYTES: usize = 64 * 1024;

/// Returns the topic of a message type: its family's where it has one, else its own.
///
/// Commands have topics of their own (`.command`), because one group alone may read them; what is
/// sent to an endpoint directly goes to the endpoint's (`.endpoint`).
pub(crate) fn topic(config: &KafkaConfig, kind: Kind, message_type: &str) -> String {
    let mut families = config.topics.families.iter();
    let family = families.find(|(begin, _)| message_type.starts_with(begin.as_str()));
    let (name, suffix) = match (kind, family) {
        (Kind::Reply, _) => (message_type, ENDPOINT),
        (Kind::Command, Some((_, family))) => (family.as_str(), ".command"),
        (Kind::Command, None) => (message_type, ".command"),
        (Kind::Event, Some((_, family))) => (family.as_str(), ""),
        (Kind::Event, None) => (message_type, ""),
    };
    format!("{}{}{suffix}", config.prefix, usable(name))
}

/// Returns the topic of an address: of a message type for `event/orders.placed`, an endpoint's own for
/// `endpoint/orders`, else what the address says, which is a topic's name: none has a slash.
pub(crate) fn topic_of<'a>(config: &KafkaConfig, address: &'a str) -> Cow<'a, str> {
    let (kind, name) = match address.split_once('/') {
        Some(("event", message_type)) => (Kind::Event, message_type),
        Some(("command", message_type)) => (Kind::Command, message_type),
        Some(("endpoint", endpoint)) => (Kind::Reply, endpoint),
        _ => return address.into(),
    };
    topic(config, kind, name).into()
}

/// Returns the topic of what is sent to an endpoint directly.
pub(crate) fn endpoint_topic(config: &KafkaConfig, endpoint: &EndpointName) -> String {
    topic(config, Kind::Reply, endpoint.as_str())
}

/// Returns the group of an endpoint.
pub(crate) fn group(config: &KafkaConfig, endpoint: &EndpointName) -> String {
    format!("{}{endpoint}", config.prefix)
}

/// Writes what Kafka does not allow in a name as `_` and two hexadecimal digits.
fn usable(name: &str) -> String {
    let mut usable = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            usable.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(usable, "_{byte:02X}");
        }
    }
    usable
}

/// Whether Kafka can have a topic of this name. An address may come from outside, as that of an
/// answer does.
fn is_usable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_short = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    is_short && name.bytes().all(fits) && name != "." && name != ".."
}

/// What an endpoint reads.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Each topic with the types that the endpoint takes from it.
    pub(crate) topics: BTreeMap<String, TopicTypes>,
}

/// The types of one topic.
#[derive(Debug, Default)]
pub(crate) struct TopicTypes {
    /// Those that the endpoint takes.
    pub(crate) taken: BTreeSet<String>,
    /// Whether others are on it by design; else every record is meant for its one type.
    pub(crate) is_shared: bool,
}

impl Reads {
    pub(crate) fn of(config: &KafkaConfig, endpoint: &EndpointSpec) -> Self {
        let mut topics: BTreeMap<String, TopicTypes> = BTreeMap::new();
        for one in &endpoint.subscriptions {
            // Replies come to the endpoint's own topic.
            if one.kind == Kind::Reply {
                continue;
            }
            let types = topics.entry(topic(config, one.kind, &one.message_type));
            let types = types.or_default();
            types.taken.insert(one.message_type.to_string());
            let mut families = config.topics.families.iter();
            types.is_shared |=
                families.any(|(begin, _)| one.message_type.starts_with(begin.as_str()));
        }
        // Whatever is sent here by name is for us to answer for.
        topics
            .entry(endpoint_topic(config, &endpoint.name))
            .or_default();
        Self { topics }
    }
}

impl TopicTypes {
    /// The type of a record that does not say its own.
    pub(crate) fn implied(&self) -> Option<&str> {
        let one = self
            .taken
            .first()
            .filter(|_| self.taken.len() == 1 && !self.is_shared);
        one.map(String::as_str)
    }

    /// Whether a record of this type is none of the endpoint's business. A record without a type
    /// is: it is a dead letter.
    pub(crate) fn passes_over(&self, message_type: &str) -> bool {
        self.is_shared && !message_type.is_empty() && !self.taken.contains(message_type)
    }
}

/// A topic as it is.
pub(crate) struct Existing {
    pub(crate) partitions: i32,
    replication: usize,
}

/// Looks a topic up; `None` where there is none. Blocks.
pub(crate) fn look_up(
    connection: &Connection,
    name: &str,
) -> Result<Option<Existing>, TransportError> {
    if !is_usable(name) {
        return Err(TransportError::Refused(format!(
            "`{name}` is no name of a topic; take 1 to {NAME_BYTES_MAX} characters out of a-z, A-Z, \
             0-9, `.`, `_` and `-`"
        )));
    }
    let what = format!("look topic `{name}` up");
    let metadata = connection.ask(&what, |inspector, patience| {
        inspector.fetch_metadata(Some(name), patience)
    })?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error() {
        None => {
            let copies = topic.partitions().iter().map(|one| one.replicas().len());
            Ok(Some(Existing {
                partitions: count(topic),
                replication: copies.min().unwrap_or(0),
            }))
        }
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        ) => Ok(None),
        // It exists, and nobody leads it yet.
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => Ok(Some(Existing {
            partitions: count(topic),
            replication: usize::MAX,
        })),
        Some(error) => Err(connection.failed(
            &what,
            &rdkafka::error::KafkaError::MetadataFetch(error.into()),
        )),
    }
}

fn count(topic: &MetadataTopic) -> i32 {
    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)
}

/// Makes sure that topics exist and keep what they must.
pub(crate) async fn have(
    connection: &Connection,
    names: Vec<String>,
) -> Result<(), TransportError> {
    let (found, missing) = connection
        .blocking(move |connection| {
            let (mut found, mut missing) = (HashMap::new(), Vec::new());
            for name in names {
                match look_up(connection, &name)? {
                    Some(existing) => {
                        found.insert(name, existing);
                    }
                    None => missing.push(name),
                }
            }
            Ok((found, missing))
        })
        .await?;
    if !found.is_empty() {
        check(connection, &found).await?;
    }
    create(connection, &missing).await
}

/// Creates topics; one that somebody else creates meanwhile is fine.
pub(crate) async fn create(
    connection: &Connection,
    names: &[String],
) -> Result<(), TransportError> {
    let Some(first) = names.first() else {
        return Ok(());
    };
    let config = connection.config();
    if config.topics.creation == Creation::Never {
        return Err(TransportError::Setup(format!(
            "topic `{first}` is missing, and topics are not to be created by this host; create it: \
             {} [SB0224]",
            recipe(config, first)
        )));
    }
    if let Some(long) = names.iter().find(|name| name.len() > NAME_BYTES_MAX) {
        return Err(TransportError::Setup(format!(
            "topic `{long}` has a name of more than {NAME_BYTES_MAX} bytes; shorten the message \
             type or put it into a family [SB0225]"
        )));
    }
    let plans: Vec<_> = names.iter().map(|name| Plan::of(config, name)).collect();
    let topics = names.iter().zip(&plans).map(|(name, plan)| {
        let partitions = plan.partitions.map_or(-1, u32::cast_signed);
        let replication = plan.replication.map_or(-1, u16::cast_signed);
        let replication = TopicReplication::Fixed(replication.into());
        let topic = NewTopic::new(name, partitions, replication);
        let settings = plan.settings.iter();
        settings.fold(topic, |topic, (setting, value)| topic.set(setting, value))
    });
    let topics: Vec<_> = topics.collect();
    submit(connection, &topics).await
}

/// What a topic is created with.
pub(crate) struct Plan {
    /// `None`: as many as the broker has by default.
    pub(crate) partitions: Option<u32>,
    /// `None`: as many copies as the broker makes by default.
    pub(crate) replication: Option<u16>,
    pub(crate) settings: [(&'static str, String); 3],
}

impl Plan {
    pub(crate) fn of(config: &KafkaConfig, name: &str) -> Self {
        // A group's assignor counts partitions and not what is in them: as many idle ones as busy
        // ones could leave a replica with nothing to do.
        let is_endpoints = name.ends_with(ENDPOINT);
        Self {
            partitions: is_endpoints.then_some(1).or(config.topics.partitions),
            replication: config.topics.replication,
            settings: [
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", config.topics.retention.millis().to_string()),
                ("max.message.bytes", record_bytes_max(config).to_string()),
            ],
        }
    }
}

/// Creates topics as they are described.
pub(crate) async fn submit(
    connection: &Connection,
    topics: &[NewTopic<'_>],
) -> Result<(), TransportError> {
    let patience = connection.config().request_timeout;
    let options = AdminOptions::new()
        .request_timeout(Some(patience))
        .operation_timeout(Some(patience));
    let admin = connection.admin()?;
    let results = admin.create_topics(topics, &options).await;
    // Dropping it joins its thread.
    connection
        .lifecycle()
        .spawn_thread("kafka-drop", move || drop(admin))
        .ok();
    let results = results.map_err(|error| connection.unreachable(&shown(&error)))?;
    for result in results {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(not_created(&name, code)),
        }
    }
    let names: Vec<String> = topics.iter().map(|one| one.name.to_owned()).collect();
    connection
        .blocking(move |connection| wait_until_there(connection, &names))
        .await
}

/// The controller has made a topic a moment before the brokers know it. Blocks.
fn wait_until_there(connection: &Connection, names: &[String]) -> Result<(), TransportError> {
    let deadline = Instant::now() + connection.config().request_timeout;
    for name in names {
        while look_up(connection, name)?.is_none() {
            if Instant::now() >= deadline {
                let fact = format!("topic `{name}` was created and is not to be found");
                return Err(TransportError::Unavailable(fact.into()));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }
    Ok(())
}

fn not_created(name: &str, code: Code) -> TransportError {
    let remedy = match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "allow this user to CREATE it, or create it for this host [SB0220]"
        }
        Code::InvalidReplicationFactor => {
            "set `topics.replication` to at most the number of brokers [SB0225]"
        }
        Code::InvalidPartitions => "set `topics.partitions` to one or more [SB0225]",
        Code::InvalidTopic => {
            "its name is not usable, or equals another one's but for `.` and `_`; choose another \
             message type or a family [SB0225]"
        }
        Code::PolicyViolation => {
            "the cluster's policy is against it; create it for this host [SB0225]"
        }
        _ => "try again, or create it for this host [SB0225]",
    };
    TransportError::Setup(format!(
        "topic `{name}` cannot be created ({code}); {remedy}"
    ))
}

fn record_bytes_max(config: &KafkaConfig) -> usize {
    config.body_bytes_max + OVERHEAD_BYTES
}

/// The command that creates a topic as we would.
fn recipe(config: &KafkaConfig, name: &str) -> String {
    let retention = config.topics.retention.millis();
    let bytes = record_bytes_max(config);
    format!(
        "kafka-topics.sh --create --topic {name} --config retention.ms={retention} --config \
         max.message.bytes={bytes}"
    )
}

/// Refuses topics that would lose messages.
async fn check(
    connection: &Connection,
    found: &HashMap<String, Existing>,
) -> Result<(), TransportError> {
    let wanted = connection.config().topics.replication.unwrap_or(0);
    for (name, existing) in found {
        if existing.replication < usize::from(wanted) {
            return Err(TransportError::Setup(format!(
                "topic `{name}` has {} copies of each record where {wanted} are wanted; reassign \
                 its partitions with more replicas, or lower `topics.replication` [SB0225]",
                existing.replication
            )));
        }
    }
    let admin = connection.admin()?;
    let options = AdminOptions::new().request_timeout(Some(connection.config().request_timeout));
    let topics: Vec<_> = found
        .keys()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let described = admin.describe_configs(&topics, &options).await;
    connection
        .lifecycle()
        .spawn_thread("kafka-drop", move || drop(admin))
        .ok();
    let described = described.map_err(|error| connection.unreachable(&shown(&error)))?;
    for settings in described {
        match settings {
            Ok(settings) => check_settings(connection.config(), &settings)?,
            // Reading settings is a permission of its own; without it we have to trust.
            Err(code) => tracing::warn!(error = %code, "a topic's settings cannot be read"),
        }
    }
    Ok(())
}

fn check_settings(config: &KafkaConfig, settings: &ConfigResource) -> Result<(), TransportError> {
    let OwnedResourceSpecifier::Topic(name) = &settings.specifier else {
        return Ok(());
    };
    let value = |setting: &str| {
        settings
            .get(setting)
            .and_then(|entry| entry.value.as_deref())
    };
    let refuse = |fact: String, setting: &str, wanted: String| {
        Err(TransportError::Setup(format!(
            "topic `{name}` {fact}; change the topic: kafka-configs.sh --alter --entity-type topics \
             --entity-name {name} --add-config {setting}={wanted} [SB0225]"
        )))
    };
    if let Some(policy) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
        return refuse(
            format!("has the cleanup policy `{policy}`, which deletes messages of the same key"),
            "cleanup.policy",
            "delete".to_owned(),
        );
    }
    let number = |setting: &str| value(setting).and_then(|text| text.parse::<i64>().ok());
    let retention = number("retention.ms").unwrap_or(-1);
    if !config.topics.retention.is_met_by(retention) {
        let wanted = match config.topics.retention {
            Kept::For(time) => format!("{time:?}"),
            Kept::Forever => "for ever".to_owned(),
        };
        return refuse(
            format!("keeps records for {retention} ms where {wanted} is wanted"),
            "retention.ms",
            config.topics.retention.millis().to_string(),
        );
    }
    let bytes = number("max.message.bytes").unwrap_or(i64::MAX);
    let wanted = record_bytes_max(config);
    if bytes < i64::try_from(wanted).unwrap_or(i64::MAX) {
        return refuse(
            format!(
                "takes records of {bytes} bytes where {wanted} are needed (or lower `body_bytes_max`)"
            ),
            "max.message.bytes",
            wanted.to_string(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sagabus_core::endpoint::Order;
    use sagabus_core::store::Subscription;

    use super::*;

    fn config() -> KafkaConfig {
        let mut config = KafkaConfig::new("kafka:9092");
        config.topics.families = vec![("billing.".to_owned(), "billing".to_owned())];
        config
    }

    #[test]
    fn every_type_has_a_topic_of_its_own_unless_it_has_a_family() {
        let of = |kind, message_type| topic(&config(), kind, message_type);
        assert_eq!(
            of(Kind::Event, "orders.order-placed"),
            "orders.order-placed"
        );
        assert_eq!(of(Kind::Command, "orders.place"), "orders.place.command");
        assert_eq!(of(Kind::Event, "billing.paid"), "billing");
        assert_eq!(of(Kind::Command, "billing.charge"), "billing.command");
        assert_eq!(of(Kind::Reply, "orders"), "orders.endpoint");
        assert_eq!(of(Kind::Event, "a/b:c"), "a_2Fb_3Ac");
        let mut staging = config();
        staging.prefix = "staging.".to_owned();
        assert_eq!(
            topic(&staging, Kind::Event, "billing.paid"),
            "staging.billing"
        );
    }

    #[test]
    fn only_a_topic_of_one_type_says_the_type_of_a_record_that_does_not() {
        let taken = [
            (Kind::Event, "orders.placed"),
            (Kind::Event, "billing.paid"),
            (Kind::Event, "billing.refunded"),
            (Kind::Reply, "orders.answer"),
        ];
        let spec = EndpointSpec {
            name: EndpointName::new("audit").unwrap(),
            order: Order::Unordered,
            subscriptions: taken
                .map(|(kind, name)| Subscription {
                    message_type: name.into(),
                    kind,
                })
                .into(),
        };
        let reads = Reads::of(&config(), &spec).topics;
        let names: Vec<_> = reads.keys().map(String::as_str).collect();
        assert_eq!(names, ["audit.endpoint", "billing", "orders.placed"]);
        assert_eq!(reads["orders.placed"].implied(), Some("orders.placed"));
        assert!(!reads["orders.placed"].passes_over("stranger"));
        assert_eq!(reads["billing"].implied(), None);
        assert!(reads["billing"].passes_over("billing.lost"));
        assert!(!reads["billing"].passes_over("billing.paid"));
        assert!(!reads["billing"].passes_over(""), "a dead letter");
        assert_eq!(reads["audit.endpoint"].implied(), None);
    }
}
