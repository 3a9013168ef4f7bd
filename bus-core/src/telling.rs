//! What came of an errand, as its operator reads it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::admin::{Moved, Report, SENT_BODY_CHARS_MAX, SENT_MAX, Sent, Standing, Verdict};
use crate::context::Staged;
use crate::endpoint::Destination;
use crate::envelope::{Due, Outgoing};
use crate::error::{Class, HandlerError};
use crate::handler::Subscriber;
use crate::handling::Endpoint;
use crate::protection::{self, Protector};
use crate::retry::Decision;
use crate::store::Instance;
use crate::unit_of_work::{InstanceChange, InstanceStatus, Label};

/// Says how a run failed, and what would become of a message that fails so for the first time.
pub(crate) fn failed(
    endpoint: &Endpoint,
    subscriber: &dyn Subscriber,
    error: &HandlerError,
) -> Verdict {
    let class = error.class();
    let retry = endpoint.retries.of(&subscriber.subscription().message_type);
    let then = match retry.decide(class, 1, 1) {
        Decision::Now | Decision::Reload | Decision::Held => "tried again at once".to_owned(),
        Decision::Later(after) | Decision::NotBefore(after) | Decision::Aside(after) => {
            format!("tried again after {}", words(after))
        }
        Decision::Dead(reason) => format!("a dead letter, {reason}"),
    };
    let class = match class {
        Class::Retry | Class::RetryAs(_) => "retry",
        Class::RetryAfter(_) => "retry_after",
        Class::Terminal => "terminal",
        Class::Conflict => "conflict",
        Class::Dead(_) => "dead",
        Class::Defer(..) => "too_early",
        Class::Elsewhere(..) => "elsewhere",
    };
    Verdict::Failed {
        class: class.to_owned(),
        then,
        error: error.chain(),
    }
}

fn words(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Tells what was staged.
pub(crate) fn tell(
    endpoint: &Endpoint,
    report: Report,
    staged: &Staged,
    before: Option<&Instance>,
) -> Report {
    let protector = endpoint.host.protector.as_deref();
    let sent = |one: &Outgoing| sent(protector, one);
    let change = staged.instance.as_ref();
    let outgoing = &staged.outgoing;
    let armed: Vec<_> = outgoing
        .iter()
        .filter_map(|one| one.timer.as_ref())
        .collect();
    let is_armed = |name: &&String| armed.iter().any(|timer| timer.name == **name);
    let disarmed = change.map_or(&[][..], |change| &change.disarmed);
    let labels = change.and_then(|change| change.labels.as_ref());
    let label = |one: &Label| (one.name.to_string(), one.value.clone());
    Report {
        instance: moved(change, before),
        sent: outgoing.iter().take(SENT_MAX).map(sent).collect(),
        sent_count: outgoing.len() as u64,
        cancelled: disarmed
            .iter()
            .filter(|name| !is_armed(name))
            .cloned()
            .collect(),
        labels: labels.map(|all| all.iter().map(label).collect()),
        note: staged.note.as_ref().map(ToString::to_string),
        ..report
    }
}

fn moved(change: Option<&InstanceChange>, before: Option<&Instance>) -> Option<Moved> {
    let id = change.map(|change| &change.id);
    let id = id.or_else(|| before.map(|before| &before.id))?;
    Some(Moved {
        kind: id.kind.to_string(),
        key: id.key.to_string(),
        before: before.map(|one| Standing {
            version: one.version,
            is_over: one.status == InstanceStatus::Completed,
            state: one.state.clone(),
            data: shown(&one.data),
            timers: one.timers.keys().cloned().collect(),
        }),
        after: change.map(|one| Standing {
            version: one.expected + 1,
            is_over: one.is_over(),
            state: one.state.as_ref().map(ToString::to_string),
            data: shown(&one.data),
            timers: one.timers.keys().cloned().collect(),
        }),
    })
}

fn shown(data: &Bytes) -> Value {
    serde_json::from_slice(data)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(data).into_owned()))
}

fn sent(protector: Option<&Protector>, one: &Outgoing) -> Sent {
    let body = protection::shown(protector, &one.envelope);
    let text = String::from_utf8_lossy(&body);
    Sent {
        message_type: one.envelope.message_type.to_string(),
        to: match &one.destination {
            Destination::Owner => "its owner".to_owned(),
            Destination::Subscribers | Destination::Watchers => "its subscribers".to_owned(),
            Destination::Endpoint(name) => format!("@{name}"),
            Destination::Address(address) => address.clone(),
        },
        key: one.key.clone(),
        after_seconds: match one.due {
            Due::Now => None,
            Due::After(time) => Some(time.as_secs_f64()),
            Due::At(_) => None,
        },
        timer: one.timer.as_ref().map(|timer| timer.name.clone()),
        body: text.chars().take(SENT_BODY_CHARS_MAX).collect(),
    }
}
