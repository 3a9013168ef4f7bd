//! `sagabus messages`, and how an envelope is shown.

use bytes::Bytes;
use sagabus_core::admin::{StoreAdmin, StoredDeadLetter, StoredHistory, StoredRow};
use sagabus_core::unit_of_work::Attempt;
use sagabus_core::{Envelope, MessageId, headers};
use sagabus_ops::messages::biography;
use sagabus_ops::{errands, shape};
use serde_json::Value;

use crate::arguments::{MessagesVerb, OperatorArguments};
use crate::errands::rehearse;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::indented;
use crate::trace;

/// How much of a body people are shown; `--json` has it all.
const BODY_CHARS_MAX: usize = 4_000;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    verb: &MessagesVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        MessagesVerb::Show { id } => show(admin, *id, out).await,
        MessagesVerb::Trace { id } => trace::run(admin, *id, out).await,
        MessagesVerb::Rehearse { id, endpoint } => {
            let subject = errands::of_message(admin, *id, endpoint.as_deref()).await?;
            rehearse(admin, subject, who, out).await
        }
    }
}

async fn show(admin: &dyn StoreAdmin, id: MessageId, out: &Output) -> Result<(), Failure> {
    let found = biography(admin, id).await?;
    if out.json(|| shape::biography(&found))? {
        return Ok(());
    }
    out.line(&format!("message {id}"))?;
    if let Some(source) = &found.source {
        out.line(&format!("sent by host {source}"))?;
    }
    if let Some(one) = &found.created_by {
        out.line(&format!("{}  {}", one.at, created(one)))?;
    }
    for one in &found.sent {
        out.line(&format!(
            "{}  a broker took it at {}",
            one.sent_at, one.destination
        ))?;
    }
    for one in &found.taken_over {
        let endpoint = one.endpoint.as_deref().unwrap_or("(removed)");
        out.line(&format!("{}  taken over at {endpoint}", one.at))?;
    }
    for one in &found.history {
        out.line(&format!("{}  {}", one.at, told(one)))?;
        for (message, message_type) in &one.entry.detail.sent {
            out.line(&format!("    sent {message_type} {message}"))?;
        }
    }
    for one in &found.dead_letters {
        out.line(&format!("{}  {}", one.at, given_up(one)))?;
    }
    for one in &found.rows {
        out.line(&format!("{}  {}", one.created_at, waiting(one)))?;
    }
    match found.is_known() {
        true => Ok(()),
        false => out.line(END_UNKNOWN),
    }
}

/// What is said of a message whose end no table knows.
pub(crate) const END_UNKNOWN: &str = "nothing is known of its end: a broker has it, or it was a \
    timer that was cancelled, or it is forgotten";

/// Tells in a line which unit sent a message.
fn created(one: &StoredHistory) -> String {
    let endpoint = one.endpoint.as_deref().unwrap_or("(removed)");
    let (cause, entry) = (one.entry.message_id, &one.entry);
    let by = entry
        .detail
        .host
        .as_deref()
        .map(|host| format!(" by {host}"));
    let by = by.unwrap_or_default();
    format!(
        "sent at {endpoint}{by}, where {} {cause} was handled",
        entry.message_type
    )
}

/// Tells of a dead letter in a line.
pub(crate) fn given_up(one: &StoredDeadLetter) -> String {
    let (status, why) = (one.status.as_str(), &one.fingerprint);
    let tries = try_count(&one.attempts);
    format!(
        "given up at {} after {tries} tries: dead letter {} ({status}), {why}",
        one.endpoint, one.id
    )
}

/// Tells of a row in a line.
pub(crate) fn waiting(one: &StoredRow) -> String {
    let state = match &one.parked {
        Some(reason) => format!("parked ({reason})"),
        None if one.is_stub() => "holds the place of a dead letter".to_owned(),
        None => format!("waits until {}", one.available_at),
    };
    let tried = match (try_count(&one.attempts), one.attempts.last()) {
        (tries @ 1.., Some(last)) => format!(", {tries} tries, last error: {}", last.error),
        _ => String::new(),
    };
    format!("row {} for {}: {state}{tried}", one.id, one.destination)
}

/// Tells what a history entry says in a line.
fn told(one: &StoredHistory) -> String {
    let entry = &one.entry;
    let mut told = format!("{} {}", entry.message_type, handled(one));
    if let Some(cause) = entry.detail.causation_id {
        told.push_str(&format!(", caused by {cause}"));
    }
    if let Some(host) = &entry.detail.host {
        told.push_str(&format!(", attempt {} on {host}", entry.detail.attempt));
    }
    told
}

/// Tells where a message was handled, and what moved.
pub(crate) fn handled(one: &StoredHistory) -> String {
    let entry = &one.entry;
    let endpoint = one.endpoint.as_deref().unwrap_or("(removed)");
    let mut told = format!("handled at {endpoint}");
    if let Some((id, version)) = &entry.instance {
        told.push_str(&format!(", {} {} to version {version}", id.kind, id.key));
    }
    let to = match entry.detail.is_over {
        true => Some("the end"),
        false => entry.detail.state_to.as_deref(),
    };
    if let (Some(from), Some(to)) = (&entry.detail.state_from, to) {
        told.push_str(&format!(" ({from} to {to})"));
    }
    if let Some(note) = &entry.detail.note {
        told.push_str(&format!(", {note}"));
    }
    told
}

/// Counts the tries that are known, those that cost no attempt included.
pub(crate) fn try_count(attempts: &[Attempt]) -> u64 {
    attempts
        .iter()
        .map(|one| u64::from(one.excused.max(1)))
        .sum()
}

/// Prints headers, attempts and body of a message.
pub(crate) fn envelope(
    envelope: &Envelope,
    body_bytes: u64,
    attempts: &[Attempt],
    out: &Output,
) -> Result<(), Failure> {
    out.line("")?;
    for (name, value) in envelope.headers.iter() {
        out.line(&format!("{name}: {value}"))?;
    }
    out.line("")?;
    let mut failures = 0;
    for attempt in attempts {
        let (at, host) = (attempt.at, &attempt.host);
        match attempt.excused {
            0 => {
                failures += 1;
                out.line(&format!("attempt {failures} {at} on {host}"))?;
            }
            n => out.line(&format!(
                "{n} tries that cost no attempt, last {at} on {host}"
            ))?,
        }
        out.line(&format!("    {}", attempt.error))?;
    }
    if !attempts.is_empty() {
        out.line("")?;
    }
    let of = |name| envelope.headers.get(name);
    match (of(headers::SEALED), of(headers::DROPPED)) {
        (_, Some(bytes)) => out.line(&format!("(body of {bytes} bytes, which was not kept)")),
        (Some(key), None) => out.line(&format!(
            "(body of {body_bytes} bytes, sealed with key `{key}`; `--keyring FILE` with that key \
             opens it)"
        )),
        (None, None) => body(&envelope.body, body_bytes, out),
    }
}

/// Prints a body where it is text, JSON with line ends; else says how long it is.
pub(crate) fn body(body: &Bytes, body_bytes: u64, out: &Output) -> Result<(), Failure> {
    let Ok(text) = std::str::from_utf8(body) else {
        return out.line(&format!(
            "(body of {body_bytes} bytes that are no text; see --json)"
        ));
    };
    let is_nested = |json: &Value| json.is_object() || json.is_array();
    let text = match serde_json::from_str::<Value>(text) {
        Ok(json) if is_nested(&json) => indented(text),
        _ => text.to_owned(),
    };
    let cut = text.char_indices().nth(BODY_CHARS_MAX);
    let end = cut.map_or(text.len(), |(at, _)| at);
    out.text(&text[..end])?;
    match cut {
        Some(_) => out.line(&format!("(cut; {body_bytes} bytes in all, see --json)")),
        None => Ok(()),
    }
}
