//! What happened, for the words of a failed assertion.

use std::fmt::Write as _;

use sagabus_core::memory::MemoryStore;

/// Writes a line for each message that was handled.
pub(super) fn shown(store: &MemoryStore) -> String {
    let mut text = "what happened:\n".to_owned();
    for entry in store.history() {
        let detail = &entry.detail;
        let instance = entry.instance.as_ref();
        let instance = instance.map_or_else(|| "-".to_owned(), |(id, to)| format!("{id} v{to}"));
        let from = detail.state_from.as_deref().unwrap_or("-");
        let to = detail.state_to.as_deref().unwrap_or("-");
        let sent: Vec<_> = detail.sent.iter().map(|(_, kind)| kind.as_ref()).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  {} on {instance}: {from} -> {to}",
            entry.message_type
        );
        if !sent.is_empty() {
            let _ = write!(text, ", sent {}", sent.join(", "));
        }
        if let Some(note) = &detail.note {
            let _ = write!(text, " ({note})");
        }
        text.push('\n');
    }
    text
}
