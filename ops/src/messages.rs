//! The life of one message, from the tables alone.

use sagabus_core::MessageId;
use sagabus_core::admin::{
    DeadLetterFilter, HistoryOf, InboxFilter, Page, RowFilter, StoreAdmin, StoredDeadLetter,
    StoredHistory, StoredRow, TakenOver,
};

use crate::error::OpsError;

/// Entries per table that a biography has at most: one message at 100 endpoints is far from usual.
const ENTRIES_MAX: u32 = 100;

/// What the tables know about one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Biography {
    /// The message.
    pub message: MessageId,
    /// Where it was taken over from a broker or an API.
    pub taken_over: Vec<TakenOver>,
    /// Its rows that are still to be sent or handled.
    pub rows: Vec<StoredRow>,
    /// What units did with it, the earliest first: who caused it, what they sent.
    pub history: Vec<StoredHistory>,
    /// Its dead letters, dealt with or not.
    pub dead_letters: Vec<StoredDeadLetter>,
}

/// Reads everything that is known about a message. Looks through the outbox, which has no index for
/// it: seconds where it has millions of rows.
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
    let page = Page::oldest(ENTRIES_MAX);
    let biography = Biography {
        message,
        taken_over: admin.inbox(&inbox, ENTRIES_MAX).await?,
        rows: admin.rows(&rows, page.without_bodies()).await?,
        history: admin.history(&HistoryOf::Message(message), page).await?,
        dead_letters: admin
            .find_dead_letters(&dead, page.without_bodies())
            .await?,
    };
    let is_known = !biography.taken_over.is_empty()
        || !biography.rows.is_empty()
        || !biography.history.is_empty()
        || !biography.dead_letters.is_empty();
    match is_known {
        true => Ok(biography),
        false => Err(OpsError::NotFound(format!(
            "no table knows message {message}: it never came here, or was handled and forgotten \
             since (inbox and history are kept for 7 days by default) [SB0401]"
        ))),
    }
}
