//! What happened, for the words of a failed assertion.

use std::fmt::Write as _;

use sagabus_core::InstanceId;
use sagabus_core::error::StoreError;
use sagabus_core::store::{StoreAdmin, StoredDeadLetter};
use sagabus_core::unit_of_work::HistoryEntry;

use sagabus_core::admin::{HistoryOf, Page, RowFilter, StoredRow};

/// Entries of each list at most: a failed assertion is read by a person.
const LINES_MAX: u32 = 50;

/// Writes a line for each message that an instance handled, for what waits, and for what was given
/// up.
pub(super) async fn shown(admin: &dyn StoreAdmin, of: &InstanceId) -> String {
    match read(admin, of).await {
        Ok(text) => text,
        Err(error) => format!("what happened cannot be read: {error}"),
    }
}

async fn read(admin: &dyn StoreAdmin, of: &InstanceId) -> Result<String, StoreError> {
    let mut text = format!("what happened to {of}:\n");
    let page = Page::oldest(LINES_MAX);
    let history = admin
        .history(&HistoryOf::Instance(of.clone()), page)
        .await?;
    if history.is_empty() {
        text.push_str("  nothing\n");
    }
    for one in history {
        push_entry(&mut text, &one.entry);
    }
    let rows = admin.rows(&RowFilter::default(), page).await?;
    list(&mut text, "waiting:\n", &rows, push_row);
    let dead = admin.dead_letters(LINES_MAX).await?;
    list(&mut text, "dead letters:\n", &dead, push_dead_letter);
    Ok(text)
}

fn list<T>(text: &mut String, title: &str, all: &[T], push: fn(&mut String, &T)) {
    if !all.is_empty() {
        text.push_str(title);
    }
    for one in all {
        push(text, one);
    }
}

// Writing to a string cannot fail: the results below are of no interest.

fn push_entry(text: &mut String, entry: &HistoryEntry) {
    let detail = &entry.detail;
    let version = entry.instance.as_ref().map_or(0, |(_, to)| *to);
    let from = detail.state_from.as_deref().unwrap_or("-");
    let to = match detail.is_over {
        true => "the end",
        false => detail.state_to.as_deref().unwrap_or("-"),
    };
    let sent: Vec<_> = detail.sent.iter().map(|(_, kind)| kind.as_ref()).collect();
    let message_type = &entry.message_type;
    let _ = write!(text, "  v{version} {message_type}: {from} -> {to}");
    if !sent.is_empty() {
        let _ = write!(text, ", sent {}", sent.join(", "));
    }
    if let Some(note) = &detail.note {
        let _ = write!(text, " ({note})");
    }
    text.push('\n');
}

fn push_row(text: &mut String, row: &StoredRow) {
    let (message_type, destination) = (&row.envelope.message_type, &row.destination);
    let _ = write!(text, "  {message_type} for {destination}");
    if let Some(timer) = &row.timer {
        let _ = write!(text, ", the timer `{}`", timer.name);
    }
    if let Some(last) = row.attempts.last() {
        let _ = write!(text, ", after {} tries: {}", row.attempts.len(), last.error);
    }
    if let Some(reason) = &row.parked {
        let _ = write!(text, ", parked: {reason}");
    }
    text.push('\n');
}

fn push_dead_letter(text: &mut String, dead: &StoredDeadLetter) {
    let error = dead.attempts.last().map_or("", |last| &last.error);
    let (message_type, reason) = (&dead.envelope.message_type, &dead.reason);
    let _ = writeln!(text, "  {message_type}: {reason}: {error}");
}
