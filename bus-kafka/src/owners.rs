//! Which store owns an endpoint, and which endpoint owns a command: written to a compacted topic,
//! so that two databases never share a group, and no command is done twice by two groups.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use tokio::time::Instant;

use crate::config::{Creation, KafkaConfig};
use crate::connection::{Connection, Watching};
use crate::error::shown;
use crate::topology;

/// What is owned, and by whom: `endpoint/orders` by a store, `command/orders.place` by an endpoint.
type Claims = BTreeMap<String, String>;

/// One read of the topic at a time waits this long.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn topic(config: &KafkaConfig) -> String {
    format!("{}sagabus-owners", config.prefix)
}

/// Claims endpoints for a store, and their commands for the endpoints.
///
/// # Errors
/// [`TransportError::Setup`], which names the owner, where another one was first.
pub(crate) async fn claim(
    connection: &Connection,
    store: StoreId,
    endpoints: &[EndpointSpec],
) -> Result<(), TransportError> {
    if endpoints.is_empty() {
        return Ok(());
    }
    have_topic(connection).await?;
    let mut wanted = Claims::new();
    for endpoint in endpoints {
        wanted.insert(format!("endpoint/{}", endpoint.name), store.to_string());
        let commands = endpoint.subscriptions.iter();
        for command in commands.filter(|one| one.kind == Kind::Command) {
            wanted.insert(
                format!("command/{}", command.message_type),
                endpoint.name.to_string(),
            );
        }
    }
    connection
        .blocking(move |connection| claim_all(connection, &wanted))
        .await
}

async fn have_topic(connection: &Connection) -> Result<(), TransportError> {
    let config = connection.config();
    let name = topic(config);
    let asked = name.clone();
    let found = connection
        .blocking(move |connection| topology::look_up(connection, &asked))
        .await?;
    if found.is_some() {
        return Ok(());
    }
    if config.topics.creation == Creation::Never {
        return Err(TransportError::Setup(format!(
            "topic `{name}`, which says who owns what, is missing, and topics are not to be created \
             by this host; create it: kafka-topics.sh --create --topic {name} --partitions 1 \
             --config cleanup.policy=compact [SB0224]"
        )));
    }
    let replication = config.topics.replication.map_or(-1, u16::cast_signed);
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(replication.into()));
    topology::submit(connection, &[new.set("cleanup.policy", "compact")]).await
}

/// Reads, writes what nobody has claimed, and reads again: of two that claim at once, the one whose
/// record came first has it, and the other one restores that.
fn claim_all(connection: &Connection, wanted: &Claims) -> Result<(), TransportError> {
    let owned = read(connection)?;
    refuse(wanted, &owned)?;
    let mut unclaimed = wanted.clone();
    unclaimed.retain(|what, _| !owned.contains_key(what));
    if unclaimed.is_empty() {
        return Ok(());
    }
    write(connection, &unclaimed)?;
    let owned = read(connection)?;
    let mut lost = owned.clone();
    lost.retain(|what, owner| wanted.get(what).is_some_and(|ours| ours != owner));
    write(connection, &lost)?;
    refuse(wanted, &owned)
}

fn refuse(wanted: &Claims, owned: &Claims) -> Result<(), TransportError> {
    for (what, ours) in wanted {
        let Some(owner) = owned.get(what).filter(|owner| *owner != ours) else {
            continue;
        };
        let fact = match what.split_once('/') {
            Some(("endpoint", endpoint)) => format!(
                "endpoint `{endpoint}` is owned by store {owner}, and this host's store is {ours}; \
                 give the endpoint another name, or connect the host to the store that owns it [SB0223]"
            ),
            Some((_, command)) => format!(
                "command `{command}` is taken by endpoint `{owner}`; remove the handler there or at \
                 `{ours}` [SB0223]"
            ),
            None => format!("`{what}` is owned by {owner} [SB0223]"),
        };
        return Err(TransportError::Setup(fact));
    }
    Ok(())
}

/// Reads the whole topic: few records, because it is compacted. Blocks.
fn read(connection: &Connection) -> Result<Claims, TransportError> {
    let name = topic(connection.config());
    let (low, high) = connection.ask("read who owns what", |inspector, patience| {
        inspector.fetch_watermarks(&name, 0, patience)
    })?;
    let mut claims = Claims::new();
    if low >= high {
        return Ok(claims);
    }
    let mut settings = connection.config().client();
    settings
        .set("group.id", &name)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10");
    let reader: BaseConsumer<Watching> = connection.client(settings, connection.watching())?;
    let cannot = |error: &KafkaError| connection.failed(&format!("read topic `{name}`"), error);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&name, 0, Offset::Offset(low))
        .and_then(|()| reader.assign(&list))
        .map_err(|error| cannot(&error))?;
    let deadline = Instant::now() + connection.config().request_timeout;
    loop {
        match reader.poll(POLL) {
            Some(Ok(record)) => {
                take(&mut claims, record.key(), record.payload());
                if record.offset() + 1 >= high {
                    return Ok(claims);
                }
            }
            // The last records may be gone by compaction.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(claims),
            Some(Err(error)) => return Err(cannot(&error)),
            None if Instant::now() >= deadline => {
                return Err(connection.unreachable(&format!("topic `{name}` cannot be read")));
            }
            None => {}
        }
    }
}

/// The first claim counts until it is deleted.
fn take(claims: &mut Claims, key: Option<&[u8]>, owner: Option<&[u8]>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(what) = key.map(text) else { return };
    match owner.map(text) {
        Some(owner) => {
            claims.entry(what).or_insert(owner);
        }
        None => {
            claims.remove(&what);
        }
    }
}

/// Writes claims and waits for the broker's word. Blocks.
fn write(connection: &Connection, claims: &Claims) -> Result<(), TransportError> {
    if claims.is_empty() {
        return Ok(());
    }
    let config = connection.config();
    let name = topic(config);
    let mut settings = config.client();
    settings
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set(
            "message.timeout.ms",
            config.request_timeout.as_millis().to_string(),
        );
    let producer: BaseProducer<DefaultProducerContext> =
        connection.client(settings, DefaultProducerContext)?;
    for (what, owner) in claims {
        let record = BaseRecord::to(&name).key(what).payload(owner);
        let sent = producer.send(record);
        sent.map_err(|(error, _)| TransportError::Setup(shown(&error)))?;
    }
    let flushed = producer.flush(config.request_timeout);
    flushed.map_err(|error| connection.unreachable(&shown(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(all: &[(&str, &str)]) -> Claims {
        let each = all.iter();
        each.map(|(what, owner)| ((*what).to_owned(), (*owner).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_claim_counts_until_it_is_deleted() {
        let mut owned = Claims::new();
        for (what, owner) in [
            ("a", Some("1")),
            ("a", Some("2")),
            ("b", Some("1")),
            ("b", None),
        ] {
            take(&mut owned, Some(what.as_bytes()), owner.map(str::as_bytes));
        }
        assert_eq!(owned, claims(&[("a", "1")]));
        take(&mut owned, Some(b"b"), Some(b"2"));
        assert_eq!(owned, claims(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn an_owner_is_named_with_what_to_do() {
        let wanted = claims(&[
            ("endpoint/orders", "S2"),
            ("command/orders.place", "orders"),
        ]);
        refuse(&wanted, &wanted).unwrap();
        refuse(&wanted, &Claims::new()).unwrap();
        let error = refuse(&wanted, &claims(&[("endpoint/orders", "S1")])).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("endpoint `orders` is owned by store S1, and")
        );
        let error = refuse(&wanted, &claims(&[("command/orders.place", "till")])).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("command `orders.place` is taken by endpoint `till`")
        );
    }
}
