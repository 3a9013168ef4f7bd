//! Kafka by a plain client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::{Arrived, SILENCE};
use crate::stopwatch::Stopwatch;
use crate::workload::Ping;

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 4;
/// How long one look takes at most.
const POLL: Duration = Duration::from_millis(50);
/// How long a question may take.
const ASK: Duration = Duration::from_secs(10);

/// A client with what one run created.
pub(crate) struct Kafka {
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    topics: Vec<String>,
    is_over: Arc<AtomicBool>,
}

impl Kafka {
    pub(crate) fn connect(brokers: &str) -> Result<Self> {
        Ok(Self {
            brokers: brokers.to_owned(),
            admin: config(brokers).create()?,
            topics: Vec::new(),
            is_over: Arc::default(),
        })
    }

    pub(crate) async fn topic(&mut self, topic: &str) -> Result<()> {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let created = self.admin.create_topics(&[new], &options()).await?;
        for one in created {
            if let Err((topic, code)) = one {
                bail!("topic {topic} is not created: {code}");
            }
        }
        self.topics.push(topic.to_owned());
        Ok(())
    }

    /// Remembers what somebody else creates, so that it is deleted with the rest.
    pub(crate) fn adopt(&mut self, topics: impl IntoIterator<Item = String>) {
        self.topics.extend(topics);
    }

    /// Reads everything that is on the topics, `count` records if all is well.
    pub(crate) async fn take_all(&self, topics: &[String], count: u64) -> Result<Arrived> {
        let (brokers, topics) = (self.brokers.clone(), topics.to_vec());
        let read = move || read_all(&brokers, &topics, i64::try_from(count)?);
        tokio::task::spawn_blocking(read).await?
    }

    /// Returns how many records a group has not acked.
    pub(crate) async fn lag(&self, group: &str, topics: &[String]) -> Result<i64> {
        let (group, topics) = (group.to_owned(), topics.to_vec());
        let mut config = config(&self.brokers);
        config.set("group.id", group);
        let look = move || {
            let reader: BaseConsumer = config.create()?;
            let mut lag = 0;
            let offsets = reader.committed_offsets(partitions(&topics, Offset::Invalid)?, ASK)?;
            for one in offsets.elements() {
                let (_, high) = reader.fetch_watermarks(one.topic(), one.partition(), ASK)?;
                // A partition without records has no offset.
                lag += high - one.offset().to_raw().unwrap_or_default().max(0);
            }
            anyhow::Ok(lag)
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// Reads records as they come, each with the time since it was sent, on a thread of its own.
    pub(crate) async fn watch(
        &self,
        topic: &str,
        stopwatch: &Arc<Stopwatch>,
    ) -> Result<JoinHandle<Result<Arrived>>> {
        let (stopwatch, is_over) = (Arc::clone(stopwatch), Arc::clone(&self.is_over));
        let (brokers, topic) = (self.brokers.clone(), topic.to_owned());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let watching = tokio::task::spawn_blocking(move || {
            let reader = reader(&brokers, &[topic])?;
            // The first fetches are under way before the first record comes.
            reader.poll(POLL);
            let _ = ready.send(()); // Whoever waits hears of a failure by the task itself.
            let mut arrived = Arrived::default();
            while !is_over.load(Ordering::SeqCst) {
                let Some(record) = reader.poll(POLL) else {
                    continue;
                };
                let record = record?;
                let ping: Ping = serde_json::from_slice(record.payload().unwrap_or_default())?;
                stopwatch.stop(ping.at);
                note(&mut arrived, &record);
            }
            Ok(arrived)
        });
        is_ready.await.context("the reader has ended")?;
        Ok(watching)
    }

    /// Deletes what was created. Whoever watches hears the end.
    pub(crate) async fn close(self) -> Result<()> {
        self.is_over.store(true, Ordering::SeqCst);
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.admin.delete_topics(&topics, &options()).await?;
        Ok(())
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ASK))
}

fn reader(brokers: &str, topics: &[String]) -> Result<BaseConsumer> {
    let mut config = config(brokers);
    config
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100");
    let reader: BaseConsumer = config.create()?;
    reader.assign(&partitions(topics, Offset::Beginning)?)?;
    Ok(reader)
}

fn partitions(topics: &[String], offset: Offset) -> Result<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, offset)?;
        }
    }
    Ok(all)
}

fn read_all(brokers: &str, topics: &[String], count: i64) -> Result<Arrived> {
    let reader = reader(brokers, topics)?;
    let mut arrived = Arrived::default();
    let mut last = Instant::now();
    while arrived.messages < count && last.elapsed() < SILENCE {
        let Some(record) = reader.poll(POLL) else {
            continue;
        };
        note(&mut arrived, &record?);
        last = Instant::now();
    }
    // What there is beyond that counts as well.
    let mut there = 0;
    for topic in topics {
        for partition in 0..PARTITIONS {
            let (low, high) = reader.fetch_watermarks(topic, partition, ASK)?;
            there += high - low;
        }
    }
    arrived.messages += (there - arrived.messages).max(0);
    Ok(arrived)
}

fn note(arrived: &mut Arrived, record: &BorrowedMessage<'_>) {
    let mut bytes = record.payload().map_or(0, <[u8]>::len);
    let mut id = String::new();
    for header in record.headers().into_iter().flat_map(Headers::iter) {
        let value = header.value.unwrap_or_default();
        bytes += header.key.len() + value.len();
        if header.key == "ce_id" {
            id = String::from_utf8_lossy(value).into_owned();
        }
    }
    arrived.add(id, bytes);
}
