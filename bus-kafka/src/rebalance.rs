//! How partitions come and go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::commits::commit_now;
use crate::connection::Watching;
use crate::consumer::Shared;
use crate::error::shown;
use crate::member::Membership;
use crate::queue::Place;

/// Hears of rebalances and commits. Called by `poll`, on the member's thread.
pub(crate) struct Rebalancing {
    pub(crate) watching: Watching,
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<watch::Sender<Membership>>,
    pub(crate) hand_over: Duration,
}

impl Rebalancing {
    /// Lets partitions go: their lanes finish, or are abandoned when the time is over; what is done
    /// is committed. Of partitions that are lost already nothing is.
    fn revoke(&self, consumer: &BaseConsumer<Self>, places: &HashSet<Place>) {
        let is_lost = consumer.assignment_lost();
        let endpoint = &self.shared.endpoint;
        tracing::debug!(%endpoint, ?places, is_lost, "partitions go");
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
                let endpoint = &self.shared.endpoint;
                tracing::debug!(%endpoint, ?places, "partitions come");
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

fn places_of(list: &TopicPartitionList) -> HashSet<Place> {
    let each = list.elements().into_iter();
    each.map(|one| (one.topic().to_owned(), one.partition()))
        .collect()
}
