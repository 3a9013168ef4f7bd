//! Groups by hand, from a broker to a broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::inlet::{Acks, Inlet};
use super::postgres::{DELETE, handle};
use super::wire::{Message, Outlet};
use super::{GROUP_MAX, Incoming, Mark, REPLY_TO, SENT_AT, Sent, Towards, take_group};
use crate::services::Place;

/// Windows of one lane that wait for their confirms at once.
const WINDOWS_MAX: usize = 3;

/// What a broker's names begin with, where it has no exchanges: topics do not say their kind.
pub(crate) type Prefix = Option<Arc<str>>;

/// A program at work.
pub(crate) struct Grouped {
    pub(crate) place: Place,
    pub(crate) inlet: Inlet,
    pub(crate) acks: Acks,
    /// One for each lane.
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) prefix: Prefix,
    pub(crate) total: u64,
    pub(crate) handled: Arc<AtomicU64>,
}

impl Grouped {
    /// Handles `total` messages. Returns its connections: what they cost is read while they last.
    pub(crate) async fn run(self) -> Result<Vec<PgConnection>> {
        let (acks, done) = mpsc::unbounded_channel();
        let acking = tokio::spawn(self.acks.run(done));
        let mut senders = Vec::new();
        let mut lanes = Vec::new();
        for outlet in self.outlets {
            let (sender, messages) = mpsc::channel(GROUP_MAX);
            senders.push(sender);
            let lane = Lane {
                connection: self.place.postgres().await?,
                outlet,
                prefix: self.prefix.clone(),
                acks: acks.clone(),
                handled: Arc::clone(&self.handled),
            };
            lanes.push(tokio::spawn(lane.run(messages)));
        }
        drop(acks);
        self.inlet.deal(self.total, senders).await?;
        let mut connections = Vec::new();
        for lane in lanes {
            connections.push(lane.await??);
        }
        acking.await??;
        Ok(connections)
    }
}

struct Lane {
    connection: PgConnection,
    outlet: Outlet,
    prefix: Prefix,
    acks: mpsc::UnboundedSender<Vec<Mark>>,
    handled: Arc<AtomicU64>,
}

impl Lane {
    async fn run(mut self, mut messages: mpsc::Receiver<Incoming>) -> Result<PgConnection> {
        let mut held_back = Vec::new();
        let mut publishing: VecDeque<JoinHandle<Result<Vec<i64>>>> = VecDeque::new();
        loop {
            let group = take_group(&mut messages, &mut held_back).await;
            if group.is_empty() {
                break;
            }
            let mut done = Vec::new();
            while publishing.len() >= WINDOWS_MAX
                || publishing.front().is_some_and(JoinHandle::is_finished)
            {
                if let Some(window) = publishing.pop_front() {
                    done.extend(window.await??);
                }
            }
            let written = handle(&mut self.connection, &group, done, Towards::Broker).await?;
            self.note(&group)?;
            let window = publish(self.outlet.clone(), self.prefix.clone(), written);
            publishing.push_back(tokio::spawn(window));
        }
        let mut done = Vec::new();
        for window in publishing {
            done.extend(window.await??);
        }
        sqlx::query(DELETE)
            .bind(done)
            .execute(&mut self.connection)
            .await?;
        Ok(self.connection)
    }

    fn note(&self, group: &[Incoming]) -> Result<()> {
        let marks = group.iter().filter_map(|message| message.mark);
        self.acks.send(marks.collect())?;
        let count = u64::try_from(group.len())?;
        self.handled.fetch_add(count, Ordering::SeqCst);
        Ok(())
    }
}

/// Publishes what a group sends; returns the rows that may go.
async fn publish(
    outlet: Outlet,
    prefix: Prefix,
    (rows, sent): (Vec<i64>, Vec<Sent>),
) -> Result<Vec<i64>> {
    let messages = rows.iter().zip(sent);
    let messages = messages.map(|(row, sent)| message(*row, sent, prefix.as_deref()));
    let messages: Vec<Message> = messages.collect();
    outlet.publish(&messages).await?;
    Ok(rows)
}

fn message(row: i64, sent: Sent, prefix: Option<&str>) -> Message {
    let suffix = if sent.kind == "command" {
        ".command"
    } else {
        ""
    };
    let destination = match prefix {
        Some(prefix) => format!("{prefix}{}{suffix}", sent.message_type),
        None => sent.destination,
    };
    let headers = [
        ("content-type", "application/json"),
        ("sagabus-kind", sent.kind),
        ("sagabus-sent-at", SENT_AT),
        ("sagabus-correlation-id", &sent.correlation),
        ("sagabus-causation-id", &sent.causation),
    ];
    let reply_to = (sent.kind == "command").then_some(("sagabus-reply-to", REPLY_TO));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Message {
        row,
        id: sent.id,
        message_type: sent.message_type.to_owned(),
        destination,
        headers: headers.into_iter().chain(reply_to).map(owned).collect(),
        body: sent.body,
    }
}
