//! Reference programs: what a careful programmer writes by hand for one service. They know the
//! tables and nothing of our types; the same rows, the same bytes, the same durability.

pub(crate) mod fast_path;
#[cfg(feature = "brokers")]
pub(crate) mod fast_publish;
#[cfg(feature = "brokers")]
pub(crate) mod grouped;
#[cfg(feature = "brokers")]
pub(crate) mod inlet;
pub(crate) mod own;
pub(crate) mod postgres;
#[cfg(feature = "brokers")]
pub(crate) mod relay;
pub(crate) mod postgres_single;
pub(crate) mod sqlite;
pub(crate) mod sqlite_single;
#[cfg(feature = "brokers")]
pub(crate) mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::source::{Raw, Source, Ticket};

/// Messages in one transaction.
pub(crate) const GROUP_MAX: usize = 100;
/// When a message is due that is not for now, in microseconds from now.
const LATER: i64 = 3_600_000_000;
/// When all messages are sent, as a header.
pub(crate) const SENT_AT: &str = "1700000000000000";
/// Where answers to the endpoint's commands go.
pub(crate) const REPLY_TO: &str = "endpoint/accounts";
/// How long a row belongs to its writer, in microseconds.
pub(crate) const LEASE: i64 = 15_000_000;

/// Where the messages that are written go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    /// To a broker, at once after the commit; then the rows go.
    Broker,
    /// To an endpoint of another process; the rows stay.
    Endpoint,
    /// To the account itself, a charge after the other.
    Itself,
}

#[derive(Deserialize)]
struct Body {
    account: String,
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct Account {
    account: String,
    balance: i64,
    changes: i64,
    note: String,
}

#[derive(Serialize)]
struct Told<'a> {
    account: &'a str,
    cents: i64,
    note: &'a str,
}

#[derive(Serialize)]
struct Headers<'a> {
    #[serde(rename = "content-type")]
    content_type: &'a str,
    #[serde(rename = "sagabus-kind")]
    kind: &'a str,
    #[serde(rename = "sagabus-sent-at")]
    sent_at: &'a str,
    #[serde(rename = "sagabus-correlation-id")]
    correlation: String,
    #[serde(rename = "sagabus-causation-id")]
    causation: String,
    /// Where answers to a command go.
    #[serde(rename = "sagabus-reply-to", skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
}

#[derive(Serialize)]
struct Detail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    state_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_to: Option<&'a str>,
    sent: Vec<(Uuid, &'a str)>,
    attempt: u32,
    micros: u64,
}

#[derive(Serialize)]
struct Origin {
    reply_to: Option<String>,
    correlation_id: Uuid,
    message_id: Uuid,
}

/// A message with its account, and what acks it.
pub(crate) struct Incoming {
    pub(crate) id: Uuid,
    pub(crate) message_type: String,
    pub(crate) correlation: Uuid,
    pub(crate) account: String,
    pub(crate) cents: i64,
    pub(crate) ticket: Option<Ticket>,
    /// The row that it is, where it is one: id and epoch.
    pub(crate) row: Option<(i64, i32)>,
    /// Where a broker has it, if it came from one: partition and offset, or the delivery's tag.
    pub(crate) mark: Option<Mark>,
}

/// Partition and offset, or 0 and the tag of a delivery.
pub(crate) type Mark = (i32, u64);

impl Incoming {
    pub(crate) fn decode(raw: &Raw, ticket: Ticket) -> Result<Self> {
        let named = |name| raw.headers.iter().find(|(known, _)| *known == name);
        let correlation = named("sagabus-correlation-id").context("no conversation")?;
        let correlation = Uuid::parse_str(&correlation.1)?;
        let body: Body = serde_json::from_slice(&raw.body)?;
        Ok(Self {
            id: raw.id,
            message_type: raw.message_type.to_owned(),
            correlation,
            account: body.account,
            cents: body.cents,
            ticket: Some(ticket),
            row: None,
            mark: None,
        })
    }

    pub(crate) fn from_row(
        row: (i64, i32),
        id: Uuid,
        message_type: String,
        headers: &[u8],
        body: &[u8],
    ) -> Result<Self> {
        let headers: HashMap<String, String> = serde_json::from_slice(headers)?;
        let correlation = headers.get("sagabus-correlation-id");
        let correlation = correlation.map(|text| Uuid::parse_str(text));
        let body: Body = serde_json::from_slice(body)?;
        Ok(Self {
            id,
            message_type,
            correlation: correlation.transpose()?.unwrap_or(id),
            account: body.account,
            cents: body.cents,
            ticket: None,
            row: Some(row),
            mark: None,
        })
    }

    pub(crate) fn from_broker(
        mark: Mark,
        id: &str,
        message_type: String,
        correlation: &str,
        body: &[u8],
    ) -> Result<Self> {
        let body: Body = serde_json::from_slice(body)?;
        Ok(Self {
            id: Uuid::parse_str(id)?,
            message_type,
            correlation: Uuid::parse_str(correlation)?,
            account: body.account,
            cents: body.cents,
            ticket: None,
            row: None,
            mark: Some(mark),
        })
    }
}

/// What a message does to its account.
pub(crate) struct Change {
    pub(crate) account: String,
    /// The version that it had; 0 for a new one.
    pub(crate) version: i64,
    pub(crate) data: Vec<u8>,
    pub(crate) origin: Vec<u8>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) detail: Vec<u8>,
}

/// A message to send.
pub(crate) struct Sent {
    pub(crate) id: Uuid,
    pub(crate) kind: &'static str,
    pub(crate) correlation: String,
    pub(crate) causation: String,
    pub(crate) message_type: &'static str,
    pub(crate) destination: String,
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// An account as it was read: version, data, and the request that opened it.
pub(crate) type Loaded = (i64, Vec<u8>);

/// Applies a message to its account.
pub(crate) fn apply(
    message: &Incoming,
    loaded: Option<&Loaded>,
    towards: Towards,
) -> Result<Change> {
    let note = crate::workload::NOTE;
    let (version, mut account) = match loaded {
        Some((version, data)) => (*version, serde_json::from_slice(data)?),
        None => (
            0,
            Account {
                account: message.account.clone(),
                balance: 0,
                changes: 0,
                note: note.to_owned(),
            },
        ),
    };
    let is_credit = message.message_type == "bench.credit";
    account.balance += if is_credit {
        message.cents
    } else {
        -message.cents
    };
    account.changes += 1;
    let told = Told {
        account: &account.account,
        cents: account.balance,
        note,
    };
    let sent = match towards {
        Towards::Itself => next_step(message, &account)?,
        _ => tell(message, &told, is_credit, towards)?,
    };
    let origin = Origin {
        reply_to: None,
        correlation_id: message.correlation,
        message_id: message.id,
    };
    Ok(Change {
        account: account.account.clone(),
        version,
        data: serde_json::to_vec(&account)?,
        origin: serde_json::to_vec(&origin)?,
        detail: detail(&sent, Some("open"), (version > 0).then_some("open"))?,
        sent,
    })
}

/// Makes what others are told.
fn tell(
    message: &Incoming,
    told: &Told<'_>,
    is_credit: bool,
    towards: Towards,
) -> Result<Vec<Sent>> {
    let mut sent = vec![send(
        message,
        "event",
        "bench.balance-changed",
        told,
        towards,
    )?];
    if is_credit {
        let command = send(message, "command", "bench.send-statement", told, towards)?;
        sent.push(command);
    }
    Ok(sent)
}

/// Makes the charge that comes after this one, if there is one.
fn next_step(message: &Incoming, account: &Account) -> Result<Vec<Sent>> {
    if account.changes >= crate::workload::STEPS {
        return Ok(Vec::new());
    }
    let charge = Told {
        account: &account.account,
        cents: message.cents,
        note: crate::workload::NOTE,
    };
    let next = send(message, "command", "bench.charge", &charge, Towards::Itself)?;
    Ok(vec![next])
}

/// Makes one message to send.
pub(crate) fn send(
    cause: &Incoming,
    kind: &'static str,
    message_type: &'static str,
    body: &impl Serialize,
    towards: Towards,
) -> Result<Sent> {
    let headers = Headers {
        content_type: "application/json",
        kind,
        sent_at: SENT_AT,
        correlation: cause.correlation.to_string(),
        causation: cause.id.to_string(),
        reply_to: (kind == "command").then_some(match towards {
            Towards::Broker => REPLY_TO,
            Towards::Endpoint | Towards::Itself => "@accounts",
        }),
    };
    let destination = match towards {
        Towards::Broker => format!("{kind}/{message_type}"),
        Towards::Endpoint => format!("@{}", crate::workload::SINK),
        Towards::Itself => format!("@{}", crate::workload::ENDPOINT),
    };
    Ok(Sent {
        id: Uuid::now_v7(),
        kind,
        message_type,
        destination,
        body: serde_json::to_vec(body)?,
        headers: serde_json::to_vec(&headers)?,
        correlation: headers.correlation,
        causation: headers.causation,
    })
}

/// Makes the message that a charge without an instance sends.
pub(crate) fn statement(cause: &Incoming) -> Result<Sent> {
    let told = Told {
        account: &cause.account,
        cents: cause.cents,
        note: crate::workload::NOTE,
    };
    send(
        cause,
        "command",
        "bench.send-statement",
        &told,
        Towards::Broker,
    )
}

/// Makes what comes in of what was sent to the same endpoint: whoever writes a row has its first lease.
pub(crate) fn handed_on(rows: Vec<i64>, sent: Vec<Sent>) -> Result<Vec<Incoming>> {
    let each = rows.into_iter().zip(sent);
    each.map(|(row, sent)| {
        let message_type = sent.message_type.to_owned();
        Incoming::from_row((row, 1), sent.id, message_type, &sent.headers, &sent.body)
    })
    .collect()
}

/// Describes what was done, for people.
pub(crate) fn detail(sent: &[Sent], to: Option<&str>, from: Option<&str>) -> Result<Vec<u8>> {
    let detail = Detail {
        state_from: from,
        state_to: to,
        sent: sent.iter().map(|one| (one.id, one.message_type)).collect(),
        attempt: 1,
        micros: 12,
    };
    Ok(serde_json::to_vec(&detail)?)
}

/// Gives each message to the lane of its account, until the source is closed.
pub(crate) async fn deal(source: &Arc<Source>, lanes: Vec<mpsc::Sender<Incoming>>) -> Result<()> {
    while let Some((raw, ticket)) = source.next().await {
        let message = Incoming::decode(&raw, ticket)?;
        let sum: usize = message.account.bytes().map(usize::from).sum();
        let lane = &lanes[sum % lanes.len()];
        lane.send(message).await.context("a lane has ended")?;
    }
    Ok(())
}

/// Waits for messages and takes up to a group of them, at most one per account; the others wait
/// for the next group. Empty at the end.
pub(crate) async fn take_group(
    lane: &mut mpsc::Receiver<Incoming>,
    held_back: &mut Vec<Incoming>,
) -> Vec<Incoming> {
    let mut arrived = std::mem::take(held_back);
    if arrived.is_empty() {
        lane.recv_many(&mut arrived, GROUP_MAX).await;
    }
    while arrived.len() < GROUP_MAX {
        match lane.try_recv() {
            Ok(one) => arrived.push(one),
            Err(_) => break,
        }
    }
    one_per_account(arrived, held_back)
}

/// Keeps the first message of each account.
pub(crate) fn one_per_account(
    arrived: Vec<Incoming>,
    held_back: &mut Vec<Incoming>,
) -> Vec<Incoming> {
    let mut seen = std::collections::HashSet::new();
    let mut group = Vec::with_capacity(arrived.len());
    for one in arrived {
        if seen.insert(one.account.clone()) {
            group.push(one);
        } else {
            held_back.push(one);
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::STEPS;

    #[test]
    fn an_account_sends_itself_one_charge_less_than_it_gets() {
        let mut message = Incoming {
            id: Uuid::from_u128(1),
            message_type: "bench.charge".to_owned(),
            correlation: Uuid::from_u128(1),
            account: "account-000000007".to_owned(),
            cents: 100,
            ticket: None,
            row: Some((1, 1)),
            mark: None,
        };
        let mut loaded = None;
        for step in 1..=STEPS {
            let change = apply(&message, loaded.as_ref(), Towards::Itself).unwrap();
            assert_eq!(change.version, step - 1);
            loaded = Some((step, change.data));
            let next = handed_on(vec![step], change.sent);
            let next = next.unwrap().pop();
            assert_eq!(next.is_some(), step < STEPS, "step {step}");
            let Some(next) = next else { continue };
            assert_eq!(next.row, Some((step, 1)));
            assert_eq!((&*next.account, next.cents), ("account-000000007", 100));
            assert_eq!(next.correlation, message.correlation);
            assert_ne!(next.id, message.id);
            message = next;
        }
    }
}
