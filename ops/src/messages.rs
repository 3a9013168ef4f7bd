//! The life of one message, from the tables alone.

use sagabus_core::admin::{
    DeadLetterFilter, HistoryOf, InboxFilter, Page, RowFilter, SentFilter, StoreAdmin,
    StoredDeadLetter, StoredHistory, StoredRow, StoredSent, TakenOver,
};
use sagabus_core::{Envelope, MessageId, headers};

use crate::error::OpsError;

/// Entries per table that a biography has at most: one message at 100 endpoints is far from usual.
const ENTRIES_MAX: u32 = 100;

/// What the tables know about one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Biography {
    /// The message.
    pub message: MessageId,
    /// The host that sent it, by its own word; none where no copy of the message is left.
    pub source: Option<String>,
    /// What the unit did that sent it; none where an API, a timetable or somebody else sent it, and
    /// where that is forgotten.
    pub created_by: Option<StoredHistory>,
    /// Where it was taken over from a broker or an API.
    pub taken_over: Vec<TakenOver>,
    /// Its rows that are still to be sent or handled.
    pub rows: Vec<StoredRow>,
    /// Where brokers confirmed it, as far as what was sent is kept.
    pub sent: Vec<StoredSent>,
    /// What units did with it, the earliest first: who caused it, what they sent.
    pub history: Vec<StoredHistory>,
    /// Its dead letters, dealt with or not.
    pub dead_letters: Vec<StoredDeadLetter>,
}

impl Biography {
    /// Says whether a table knows what became of it, and not only who sent it. Of what is not known, a
    /// broker has it, it was a timer that was cancelled, or it is forgotten.
    pub fn is_known(&self) -> bool {
        !(self.taken_over.is_empty()
            && self.rows.is_empty()
            && self.sent.is_empty()
            && self.history.is_empty()
            && self.dead_letters.is_empty())
    }

    /// Returns the copies of the message that are left.
    pub(crate) fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        let rows = self.rows.iter().map(|one| &one.envelope);
        rows.chain(self.dead_letters.iter().map(|one| &one.envelope))
    }

    /// Returns the message that caused it, where something says so.
    fn cause(&self) -> Option<MessageId> {
        let told = self
            .history
            .iter()
            .find_map(|one| one.entry.detail.causation_id);
        told.or_else(|| self.envelopes().find_map(cause))
    }

    /// Finds the unit that sent it: among those of its cause where that is known; where nothing is
    /// left of the message, in all history.
    async fn sender(&self, admin: &dyn StoreAdmin) -> Result<Option<StoredHistory>, OpsError> {
        let has_sent = |one: &StoredHistory| one.entry.detail.has_sent(self.message);
        let of = match self.cause() {
            Some(cause) => HistoryOf::Message(cause),
            None if self.would_say_its_cause() => return Ok(None),
            None => HistoryOf::Sender(self.message),
        };
        let limit = match of {
            HistoryOf::Sender(_) => 1,
            _ => ENTRIES_MAX,
        };
        let found = admin.history(&of, Page::oldest(limit)).await?;
        Ok(found.into_iter().find(has_sent))
    }

    fn would_say_its_cause(&self) -> bool {
        !self.history.is_empty() || self.envelopes().next().is_some()
    }
}

/// Reads what a message says of its cause.
pub(crate) fn cause(envelope: &Envelope) -> Option<MessageId> {
    envelope.headers.get(headers::CAUSATION_ID)?.parse().ok()
}

/// Reads everything that is known about a message. Looks through the outbox, which has no index for
/// it, and through history for who sent it where nothing else is left: seconds where there are
/// millions.
///
/// # Errors
/// [`OpsError::NotFound`] when no table knows it.
pub async fn biography(admin: &dyn StoreAdmin, message: MessageId) -> Result<Biography, OpsError> {
    let rows = RowFilter {
        message: Some(message),
        ..RowFilter::default()
    };
    let dead = DeadLetterFilter {
        message: Some(message),
        ..DeadLetterFilter::any()
    };
    let inbox = InboxFilter {
        message: Some(message),
        ..InboxFilter::default()
    };
    let sent = SentFilter {
        message: Some(message),
        ..SentFilter::default()
    };
    let page = Page::oldest(ENTRIES_MAX);
    let mut biography = Biography {
        message,
        source: None,
        created_by: None,
        taken_over: admin.inbox(&inbox, ENTRIES_MAX).await?,
        rows: admin.rows(&rows, page.without_bodies()).await?,
        sent: admin.sent(&sent, page).await?,
        history: admin.history(&HistoryOf::Message(message), page).await?,
        dead_letters: admin
            .find_dead_letters(&dead, page.without_bodies())
            .await?,
    };
    let source = |one: &Envelope| one.headers.get(headers::SOURCE).map(str::to_owned);
    let told = biography.envelopes().find_map(source);
    biography.source = told;
    biography.created_by = biography.sender(admin).await?;
    match biography.is_known() || biography.created_by.is_some() {
        true => Ok(biography),
        false => Err(OpsError::NotFound(format!(
            "no table knows message {message}: it never came here, or was handled and forgotten \
             since (inbox and history are kept for 7 days by default) [SB0401]"
        ))),
    }
}
