//! A whole conversation: which message caused which, from the tables alone.

use std::collections::{BTreeMap, HashSet};

use sagabus_core::admin::{
    DeadLetterFilter, HistoryOf, PAGE_MAX, Page, RowFilter, StoreAdmin, StoredDeadLetter,
    StoredHistory, StoredRow,
};
use sagabus_core::{CorrelationId, Envelope, MessageId, headers};
use serde_json::{Value, json};

use crate::error::OpsError;
use crate::messages::{Biography, biography, cause};
use crate::pages::Pages;
use crate::shape;

/// The most messages of one conversation that are shown: more than anybody reads, and each is
/// looked up once.
pub const MESSAGES_MAX: usize = 1_000;
/// The most rows of the outbox that are looked through, the oldest first: 20 pages.
const ROWS_MAX: usize = 10_000;
/// Dead letters of one message: far more than it usually has.
const DEATHS_MAX: u32 = 20;

/// A conversation, cause before effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The conversation; none where nothing that is known of the message says which.
    pub conversation: Option<CorrelationId>,
    /// Its messages: each is followed by what it caused.
    pub messages: Vec<Traced>,
    /// Whether there may be more than is shown.
    pub is_cut: bool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// How many known causes stand above it.
    pub depth: usize,
    /// The message.
    pub message: MessageId,
    /// Its type; none where only its identity is known.
    pub message_type: Option<String>,
    /// The message that caused it, known or not.
    pub caused_by: Option<MessageId>,
    /// What units did with it, the earliest first.
    pub handled: Vec<StoredHistory>,
    /// Its dead letters, dealt with or not.
    pub dead_letters: Vec<StoredDeadLetter>,
    /// Its rows that are still to be sent or handled.
    pub rows: Vec<StoredRow>,
}

impl Traced {
    fn new(message: MessageId) -> Self {
        Self {
            depth: 0,
            message,
            message_type: None,
            caused_by: None,
            handled: Vec::new(),
            dead_letters: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Says whether a table knows what became of it. Of what is not known, a broker has it, it was a
    /// timer that was cancelled, or it is forgotten.
    pub fn is_known(&self) -> bool {
        !(self.handled.is_empty() && self.dead_letters.is_empty() && self.rows.is_empty())
    }
}

/// Reads the conversation of a message. Looks through history, which has no index for it, and
/// through the first 10,000 rows of the outbox: seconds where there are millions.
///
/// # Errors
/// [`OpsError::NotFound`] when no table knows the message.
pub async fn trace(admin: &dyn StoreAdmin, message: MessageId) -> Result<Trace, OpsError> {
    let asked = biography(admin, message).await?;
    let conversation = conversation_of(&asked);
    let mut known = Known::default();
    known.message(message);
    for one in &asked.history {
        known.handled(one.clone());
    }
    if let Some(conversation) = conversation {
        known.read_history(admin, conversation).await?;
        known.read_rows(admin, conversation).await?;
    }
    for one in asked.rows {
        known.row(one);
    }
    known.read_dead_letters(admin).await?;
    let is_cut = known.is_cut;
    let messages = known.in_order();
    Ok(Trace {
        conversation,
        messages,
        is_cut,
    })
}

/// Shapes a conversation, in the words of the other documents.
pub fn shape(one: &Trace) -> Value {
    let messages = one.messages.iter().map(|one| {
        json!({
            "depth": one.depth,
            "message_id": one.message,
            "message_type": one.message_type,
            "caused_by": one.caused_by,
            "is_known": one.is_known(),
            "history": one.handled.iter().map(shape::history).collect::<Vec<_>>(),
            "dead_letters": one.dead_letters.iter().map(shape::dead_letter).collect::<Vec<_>>(),
            "rows": one.rows.iter().map(shape::row).collect::<Vec<_>>(),
        })
    });
    json!({
        "conversation": one.conversation,
        "messages": messages.collect::<Vec<_>>(),
        "is_cut": one.is_cut,
    })
}

fn conversation_of(asked: &Biography) -> Option<CorrelationId> {
    let handled = asked.history.first().or(asked.created_by.as_ref());
    let handled = handled.map(|one| one.entry.correlation_id);
    handled.or_else(|| asked.envelopes().find_map(told))
}

/// Reads what a message says of its conversation.
fn told(envelope: &Envelope) -> Option<CorrelationId> {
    envelope.headers.get(headers::CORRELATION_ID)?.parse().ok()
}

/// What is known so far.
#[derive(Default)]
struct Known {
    messages: BTreeMap<MessageId, Traced>,
    /// In the order in which they were heard of, which is that of their causes.
    order: Vec<MessageId>,
    entries: HashSet<i64>,
    rows: HashSet<i64>,
    is_cut: bool,
}

impl Known {
    /// Finds a message, or a place for it; none where there are too many.
    fn message(&mut self, id: MessageId) -> Option<&mut Traced> {
        if !self.messages.contains_key(&id) {
            if self.messages.len() >= MESSAGES_MAX {
                self.is_cut = true;
                return None;
            }
            self.order.push(id);
        }
        Some(self.messages.entry(id).or_insert_with(|| Traced::new(id)))
    }

    fn handled(&mut self, one: StoredHistory) {
        if !self.entries.insert(one.id) {
            return;
        }
        let cause = one.entry.message_id;
        let sent = one.entry.detail.sent.clone();
        let Some(traced) = self.message(cause) else {
            return;
        };
        traced.message_type = Some(one.entry.message_type.to_string());
        traced.caused_by = traced.caused_by.or(one.entry.detail.causation_id);
        traced.handled.push(one);
        for (message, message_type) in sent {
            if let Some(traced) = self.message(message) {
                traced.message_type = Some(message_type.into_owned());
                traced.caused_by = Some(cause);
            }
        }
    }

    fn row(&mut self, one: StoredRow) {
        if !self.rows.insert(one.id) {
            return;
        }
        if let Some(traced) = self.message(one.envelope.id) {
            traced.message_type = Some(one.envelope.message_type.to_string());
            traced.caused_by = traced.caused_by.or_else(|| cause(&one.envelope));
            traced.rows.push(one);
        }
    }

    async fn read_history(
        &mut self,
        admin: &dyn StoreAdmin,
        conversation: CorrelationId,
    ) -> Result<(), OpsError> {
        let of = HistoryOf::Conversation(conversation);
        let mut pages = Pages::new(MESSAGES_MAX.div_ceil(PAGE_MAX as usize));
        while let Some(page) = pages.next() {
            let found = admin.history(&of, page).await?;
            pages.had(found.iter().map(|one| one.id));
            found.into_iter().for_each(|one| self.handled(one));
        }
        self.is_cut |= pages.are_cut();
        Ok(())
    }

    async fn read_rows(
        &mut self,
        admin: &dyn StoreAdmin,
        conversation: CorrelationId,
    ) -> Result<(), OpsError> {
        let every = RowFilter::default();
        let mut pages = Pages::new(ROWS_MAX / PAGE_MAX as usize);
        while let Some(page) = pages.next() {
            let found = admin.rows(&every, page).await?;
            pages.had(found.iter().map(|one| one.id));
            let meant = found
                .into_iter()
                .filter(|one| told(&one.envelope) == Some(conversation));
            meant.for_each(|one| self.row(one));
        }
        self.is_cut |= pages.are_cut();
        Ok(())
    }

    async fn read_dead_letters(&mut self, admin: &dyn StoreAdmin) -> Result<(), OpsError> {
        let page = Page::oldest(DEATHS_MAX).without_bodies();
        for traced in self.messages.values_mut() {
            let filter = DeadLetterFilter {
                message: Some(traced.message),
                ..DeadLetterFilter::any()
            };
            traced.dead_letters = admin.find_dead_letters(&filter, page).await?;
            if let Some(dead) = traced.dead_letters.first() {
                traced.message_type = Some(dead.envelope.message_type.to_string());
                traced.caused_by = traced.caused_by.or_else(|| cause(&dead.envelope));
            }
        }
        Ok(())
    }

    /// Puts each message behind its cause.
    fn in_order(mut self) -> Vec<Traced> {
        let mut caused: BTreeMap<MessageId, Vec<MessageId>> = BTreeMap::new();
        let mut left = Vec::new();
        // The last comes first off a stack.
        for id in self.order.iter().rev() {
            let cause = self.messages.get(id).and_then(|one| one.caused_by);
            match cause.filter(|cause| cause != id && self.messages.contains_key(cause)) {
                Some(cause) => caused.entry(cause).or_default().push(*id),
                None => left.push((0, *id)),
            }
        }
        let mut ordered = Vec::with_capacity(self.order.len());
        loop {
            while let Some((depth, id)) = left.pop() {
                let Some(traced) = self.messages.remove(&id) else {
                    continue;
                };
                ordered.push(Traced { depth, ..traced });
                let effects = caused.remove(&id).unwrap_or_default();
                left.extend(effects.into_iter().map(|id| (depth + 1, id)));
            }
            // Headers are anybody's to write: causes may stand in a ring.
            match self.messages.keys().next() {
                Some(id) => left.push((0, *id)),
                None => return ordered,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pairs: &[(MessageId, Option<MessageId>)]) -> Vec<(usize, MessageId)> {
        let mut known = Known::default();
        for (id, cause) in pairs {
            let traced = known.message(*id).unwrap();
            traced.caused_by = *cause;
        }
        let ordered = known.in_order();
        ordered.iter().map(|one| (one.depth, one.message)).collect()
    }

    #[test]
    fn effects_follow_their_cause() {
        let [a, b, c, d, stranger] = [(); 5].map(|()| MessageId::new());
        let found = known(&[
            (a, Some(stranger)),
            (b, Some(a)),
            (c, Some(a)),
            (d, Some(b)),
        ]);
        assert_eq!(found, [(0, a), (1, b), (2, d), (1, c)]);
    }

    #[test]
    fn a_ring_of_causes_is_shown_and_ends() {
        let [a, b, c] = [(); 3].map(|()| MessageId::new());
        let found = known(&[(a, Some(b)), (b, Some(a)), (c, Some(c))]);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], (0, c));
    }

    #[test]
    fn a_conversation_without_end_is_cut() {
        let mut known = Known::default();
        for _ in 0..MESSAGES_MAX {
            assert!(known.message(MessageId::new()).is_some());
        }
        assert!(!known.is_cut);
        assert!(known.message(MessageId::new()).is_none());
        assert!(known.is_cut);
    }
}
