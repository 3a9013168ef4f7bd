//! What tools print as JSON. Names stay as they are; new ones may come.
//!
//! Times are RFC 3339 in UTC. A body is `{"bytes": n, "text": ".."}` where it is UTF-8, else
//! `{"bytes": n, "hex": ".."}` with its first 256 bytes; where it was not read, only `bytes`.

use bytes::Bytes;
use sagabus_core::Timestamp;
use sagabus_core::admin::{
    About, AuditEntry, Counts, DeadLetterGroup, DestinationOverview, ErrandAnswer,
    InstanceOverview, StoredDeadLetter, StoredEndpoint, StoredHistory, StoredHost, StoredOperation,
    StoredRow, StoredSent, TakenOver, Tally,
};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::{Attempt, InstanceStatus, Label};
use serde_json::{Map, Value, json};

use crate::accounts::Balance;
use crate::difference::between;
use crate::doctor::{Check, Examination};
use crate::hosts::{MachineSkew, Skew};
use crate::locks::HeldLock;
use crate::machines::DescribedMachine;
use crate::messages::Biography;
use crate::operations::Progress;
use crate::plan::Plan;
use crate::schedules::StoredSchedule;
use crate::status::{Finding, Status, is_alive};

/// How much of a body that is no text is shown.
const HEX_BYTES: usize = 256;

/// Shapes a time.
pub fn time(at: Timestamp) -> Value {
    Value::String(at.to_string())
}

fn maybe_time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, time)
}

/// Shapes a body of which `read` was read.
pub fn body(read: &Bytes, bytes: u64) -> Value {
    if read.is_empty() && bytes > 0 {
        return json!({ "bytes": bytes });
    }
    match std::str::from_utf8(read) {
        Ok(text) => json!({ "bytes": bytes, "text": text }),
        Err(_) => json!({ "bytes": bytes, "hex": hex(&read[..read.len().min(HEX_BYTES)]) }),
    }
}

/// Shapes what a host answered to an errand, with what differs in its instance.
pub fn answer(endpoint: &str, answer: &ErrandAnswer) -> Value {
    let moved = answer.report.instance.as_ref();
    let held = moved.and_then(|one| one.before.as_ref().zip(one.after.as_ref()));
    let differs = held.map_or_else(Vec::new, |(from, to)| between(&from.data, &to.data));
    let places = differs
        .into_iter()
        .map(|one| json!({ "path": one.path, "before": one.before, "after": one.after }));
    json!({
        "endpoint": endpoint,
        "host": answer.host,
        "report": answer.report,
        "changes": places.collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn headers(headers: &sagabus_core::Headers) -> Value {
    let all = headers.iter();
    Value::Object(
        all.map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect::<Map<_, _>>(),
    )
}

fn attempts(attempts: &[Attempt]) -> Vec<Value> {
    let shape = |one: &Attempt| {
        let (at, excused) = (time(one.at), one.excused);
        json!({ "at": at, "host": one.host, "error": one.error, "excused": excused })
    };
    attempts.iter().map(shape).collect()
}

/// Shapes which database it is.
pub fn about(about: &About) -> Value {
    json!({
        "store": about.store,
        "engine": about.engine,
        "schema_version": about.schema_version,
        "now": time(about.now),
    })
}

/// Shapes how many rows there are.
pub fn counts(counts: &Counts) -> Value {
    json!(counts)
}

/// Shapes the accounts.
pub fn balance(balance: &Balance) -> Value {
    let lines = balance.accounts.lines.iter().map(|one| {
        json!({
            "endpoint": one.endpoint,
            "message_type": one.message_type,
            "accepted": one.accepted,
            "created": one.created,
            "handled": one.handled,
            "dead": one.dead,
            "expired": one.expired,
            "discarded": one.discarded,
            "moved": one.moved,
            "pending": one.pending,
            "missing": one.missing,
        })
    });
    let missing = balance.accounts.missing.iter().map(|one| {
        json!({
            "message_id": one.message,
            "endpoint": one.endpoint,
            "message_type": one.message_type,
            "at": time(one.at),
        })
    });
    json!({
        "is_balanced": balance.is_balanced(),
        "since": time(balance.accounts.since),
        "accounts": lines.collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
        "without_history": balance.without_history,
    })
}

/// Shapes a dead letter.
pub fn dead_letter(one: &StoredDeadLetter) -> Value {
    json!({
        "id": one.id,
        "status": one.status,
        "at": time(one.at),
        "endpoint": one.endpoint,
        "message_id": one.envelope.id,
        "message_type": one.envelope.message_type,
        "correlation_id": one.envelope.correlation_id(),
        "reason": one.reason,
        "fingerprint": one.fingerprint,
        "key": one.key,
        "instance": one.instance,
        "headers": headers(&one.envelope.headers),
        "body": body(&one.envelope.body, one.body_bytes),
        "attempts": attempts(&one.attempts),
    })
}

/// Shapes a group of dead letters.
pub fn group(one: &DeadLetterGroup) -> Value {
    json!({
        "endpoint": one.endpoint,
        "fingerprint": one.fingerprint,
        "count": one.count,
        "first_at": time(one.first_at),
        "last_at": time(one.last_at),
        "example": one.example,
    })
}

/// Shapes a sum.
pub fn tally(one: &Tally) -> Value {
    json!({
        "count": one.count,
        "first_at": maybe_time(one.first_at),
        "last_at": maybe_time(one.last_at),
        "id_max": one.id_max,
    })
}

/// Shapes a row of the outbox.
pub fn row(one: &StoredRow) -> Value {
    let timer = one.timer.as_ref().map(
        |timer| json!({ "owner": timer.owner, "name": timer.name, "generation": timer.generation }),
    );
    json!({
        "id": one.id,
        "destination": one.destination,
        "message_id": one.envelope.id,
        "message_type": one.envelope.message_type,
        "correlation_id": one.envelope.correlation_id(),
        "key": one.key,
        "parked": one.parked,
        "available_at": time(one.available_at),
        "is_stub": one.is_stub(),
        "due_at": maybe_time(one.due_at),
        "expires_at": maybe_time(one.expires_at),
        "created_at": time(one.created_at),
        "epoch": one.epoch,
        "failures": one.failures,
        "timer": timer,
        "headers": headers(&one.envelope.headers),
        "body": body(&one.envelope.body, one.body_bytes),
        "attempts": attempts(&one.attempts),
    })
}

/// Shapes a message that a broker took.
pub fn sent(one: &StoredSent) -> Value {
    json!({
        "id": one.id,
        "destination": one.destination,
        "message_id": one.message,
        "message_type": one.message_type,
        "key": one.key,
        "sent_at": time(one.sent_at),
        "kept_until": time(one.kept_until),
    })
}

/// Shapes what the outbox holds for a destination.
pub fn destination(one: &DestinationOverview) -> Value {
    json!({
        "destination": one.destination,
        "waiting": one.waiting,
        "due": one.due,
        "due_since": maybe_time(one.due_since),
        "oldest_at": maybe_time(one.oldest_at),
        "parked": one.parked,
    })
}

/// Shapes a host, with what it described of itself.
pub fn host(one: &StoredHost, now: Timestamp) -> Value {
    json!({
        "id": one.id,
        "name": one.name,
        "version": one.definitions["version"],
        "is_alive": is_alive(one, now),
        "started_at": time(one.started_at),
        "heartbeat_at": time(one.heartbeat_at),
        "stopped_at": maybe_time(one.stopped_at),
        "clock_behind_seconds": one.behind.map(|behind| behind as f64 / 1e6),
        "definitions": one.definitions,
    })
}

/// Shapes a machine with the hosts that described it.
pub fn machine(one: &DescribedMachine) -> Value {
    let hosts = one.hosts.iter();
    json!({
        "name": one.name,
        "endpoint": one.endpoint,
        "alive": one.alive,
        "hosts": hosts
            .map(|host| json!({ "id": host.id, "name": host.name, "heartbeat_at": time(host.heartbeat_at) }))
            .collect::<Vec<_>>(),
        "description": one.description,
    })
}

/// Shapes an endpoint.
pub fn endpoint(one: &StoredEndpoint) -> Value {
    let takes = one.subscriptions.iter();
    json!({
        "name": one.name,
        "order": one.order,
        "subscriptions": takes
            .map(|(message_type, kind)| json!({ "message_type": message_type, "kind": kind }))
            .collect::<Vec<_>>(),
    })
}

fn status_word(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Running => "running",
        InstanceStatus::Completed => "completed",
    }
}

/// Shapes an instance without its data.
pub fn overview(one: &InstanceOverview) -> Value {
    json!({
        "kind": one.id.kind,
        "key": one.id.key,
        "version": one.version,
        "status": status_word(one.status),
        "state": one.state,
        "created_at": time(one.created_at),
        "updated_at": time(one.updated_at),
    })
}

/// Shapes an instance with its labels, its data and its history.
pub fn instance(one: &Instance, labels: &[Label], history: &[StoredHistory]) -> Value {
    json!({
        "kind": one.id.kind,
        "key": one.id.key,
        "version": one.version,
        "status": status_word(one.status),
        "state": one.state,
        "schema_version": one.schema_version,
        "labels": labels.iter().map(|one| json!({ "name": one.name, "value": one.value })).collect::<Vec<_>>(),
        "timers": one.timers,
        "origin": one.origin,
        "data": body(&one.data, one.data.len() as u64),
        "history": history.iter().map(self::history).collect::<Vec<_>>(),
    })
}

/// Shapes a history entry.
pub fn history(one: &StoredHistory) -> Value {
    let entry = &one.entry;
    json!({
        "id": one.id,
        "at": time(one.at),
        "endpoint": one.endpoint,
        "message_id": entry.message_id,
        "message_type": entry.message_type,
        "correlation_id": entry.correlation_id,
        "instance": entry.instance.as_ref().map(|(id, version)| {
            json!({ "kind": id.kind, "key": id.key, "version": version })
        }),
        "detail": entry.detail,
    })
}

/// Shapes a row of the inbox.
pub fn inbox(one: &TakenOver) -> Value {
    let mut shaped = taken_over(one);
    shaped["message_id"] = json!(one.message);
    shaped["handled"] = one.handled.as_ref().map_or(Value::Null, history);
    shaped
}

fn taken_over(one: &TakenOver) -> Value {
    json!({ "endpoint": one.endpoint, "at": time(one.at) })
}

/// Shapes what is known about a message.
pub fn biography(one: &Biography) -> Value {
    json!({
        "message_id": one.message,
        "source": one.source,
        "created_by": one.created_by.as_ref().map(history),
        "sent": one.sent.iter().map(sent).collect::<Vec<_>>(),
        "taken_over": one.taken_over.iter().map(taken_over).collect::<Vec<_>>(),
        "rows": one.rows.iter().map(row).collect::<Vec<_>>(),
        "history": one.history.iter().map(history).collect::<Vec<_>>(),
        "dead_letters": one.dead_letters.iter().map(dead_letter).collect::<Vec<_>>(),
    })
}

/// Shapes an operator's change.
pub fn audit(one: &AuditEntry) -> Value {
    json!({
        "id": one.id,
        "at": time(one.at),
        "who": one.who,
        "action": one.action,
        "why": one.why,
        "operation": one.operation,
        "detail": one.detail,
    })
}

/// Shapes an operation.
pub fn operation(one: &StoredOperation, now: Timestamp) -> Value {
    json!({
        "id": one.id,
        "state": one.state,
        "verb": one.verb.as_str(),
        "to": one.verb.to(),
        "total": one.total,
        "taken": one.taken,
        "changed": one.changed,
        "passed_over": one.taken - one.changed,
        "note": one.note,
        "rate": one.pace.rate,
        "canary": one.pace.canary,
        "failures_percent_max": one.pace.failures_percent_max,
        "who": one.who,
        "why": one.why,
        "selection": one.selection,
        "endpoints": one.endpoints,
        "driver": one.driver,
        "is_driven": one.is_driven(now),
        "created_at": time(one.created_at),
        "updated_at": time(one.updated_at),
    })
}

/// Shapes an operation with what became of its messages.
pub fn progress(one: &Progress, now: Timestamp) -> Value {
    let mut shaped = operation(&one.operation, now);
    shaped["redriven"] = json!(one.redriven);
    shaped
}

fn finding(one: &Finding) -> Value {
    json!({ "code": one.code, "fact": one.fact, "remedy": one.remedy })
}

/// Shapes how the whole is doing.
pub fn status(one: &Status) -> Value {
    let alive = one
        .hosts
        .iter()
        .filter(|host| is_alive(host, one.about.now));
    json!({
        "about": about(&one.about),
        "counts": counts(&one.counts),
        "hosts_alive": alive.count(),
        "destinations": one.destinations.iter().map(destination).collect::<Vec<_>>(),
        "dead_letter_groups": one.groups.iter().map(group).collect::<Vec<_>>(),
        "findings": one.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Shapes a schedule.
pub fn schedule(one: &StoredSchedule) -> Value {
    let held = one.schedule.as_ref();
    let declared = held.map(|held| &held.declared);
    let recurrence = declared.map(|declared| &declared.recurrence);
    let firings = held.map_or(&[][..], |held| &held.firings);
    json!({
        "schedule": one.name,
        "state": one.state,
        "declared_by": one.declared_by,
        "host": declared.map(|declared| &declared.host),
        "message_type": declared.map(|declared| &declared.message_type),
        "cron": recurrence.map(|recurrence| recurrence.expression()),
        "zone": recurrence.map(|recurrence| recurrence.zone()),
        "recurrence": recurrence,
        "next": maybe_time(held.and_then(|held| held.next)),
        "fired": held.map(|held| held.fired),
        "firings": firings.iter().map(|one| json!({
            "due": time(one.due), "at": time(one.at), "message": one.message,
        })).collect::<Vec<_>>(),
    })
}

/// Shapes what a doctor examined: every check, with what it found.
pub fn examination(one: &Examination) -> Value {
    let vitals = &one.vitals;
    let check = |check: &Check| {
        json!({
            "check": check.name,
            "about": check.about,
            "findings": check.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    };
    let tables = vitals.tables.iter();
    json!({
        "about": about(&one.status.about),
        "is_well": one.findings().next().is_none(),
        "checks": one.checks.iter().map(check).collect::<Vec<_>>(),
        "vitals": {
            "bytes": vitals.bytes,
            "free_bytes": vitals.free_bytes,
            "held": vitals.held,
            "oldest_transaction_seconds":
                vitals.oldest_transaction.map(|age| age.as_secs_f64()),
            "horizon_transactions": vitals.horizon_transactions,
            "tables": tables
                .map(|one| json!({
                    "table": one.name, "rows": one.rows, "dead_rows": one.dead_rows,
                }))
                .collect::<Vec<_>>(),
        },
    })
}

/// Shapes what hosts do not know alike.
pub fn skew(one: &Skew) -> Value {
    let known = one.known.iter();
    json!({
        "endpoint": one.endpoint,
        "message_type": one.message_type,
        "known": known
            .map(|(host, version)| json!({ "host": host, "version": version }))
            .collect::<Vec<_>>(),
    })
}

/// Shapes a machine that live hosts do not know alike.
pub fn machine_skew(one: &MachineSkew) -> Value {
    let known = one.known.iter().map(|(host, known)| {
        let definition = known.as_ref().map(|known| {
            json!({ "digest": known.digest, "schema_version": known.schema_version,
                "states": known.states, "transitions": known.transitions })
        });
        json!({ "host": host, "definition": definition })
    });
    json!({
        "endpoint": one.endpoint,
        "machine": one.machine,
        "known": known.collect::<Vec<_>>(),
    })
}

/// Shapes what came of comparing a release with a database.
pub fn plan(one: &Plan) -> Value {
    json!({
        "about": about(&one.about),
        "compared": one.compared,
        "others": one.others,
        "findings": one.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Shapes a lock.
pub fn lock(one: &HeldLock) -> Value {
    let who = |(kind, key): &(String, String)| json!({ "kind": kind, "key": key });
    json!({
        "resource": one.resource,
        "holder": one.holder.as_ref().map(who),
        "waiting": one.waiting.iter().map(who).collect::<Vec<_>>(),
        "changed_at": time(one.changed_at),
    })
}
