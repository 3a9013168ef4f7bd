//! Dead letters: a preview of what is meant. What is done with them is an operation.

use bytes::Bytes;
use sagabus_core::admin::{
    Action, DeadLetterFilter, DeadLetterStatus, Edit, Page, StoreAdmin, StoredDeadLetter, Verb,
};
use sagabus_core::headers::{CONTENT_TYPE, DROPPED, SEALED};
use sagabus_core::{Envelope, Keyring, MessageId};
use serde::de::IgnoredAny;

use crate::error::OpsError;
use crate::operator::Operator;
use crate::selection::{SAMPLE, Selection};

/// Returns the status that a dead letter has for something to be done with it.
pub const fn takes(verb: &Verb) -> DeadLetterStatus {
    match verb {
        Verb::Restore => DeadLetterStatus::Discarded,
        _ => DeadLetterStatus::Open,
    }
}

/// Who an edited message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The same message: whoever handled it before, and every key made of its identity, knows it.
    Kept,
    /// A new message.
    New,
}

/// Counts and freezes what is meant. Changes nothing.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn select(
    admin: &dyn StoreAdmin,
    verb: &Verb,
    filter: DeadLetterFilter,
) -> Result<Selection<DeadLetterFilter, StoredDeadLetter>, OpsError> {
    let mut filter = DeadLetterFilter {
        status: Some(takes(verb)),
        ..filter
    };
    let tally = admin.count_dead_letters(&filter).await?;
    filter.id_max = filter.id_max.or(tally.id_max).or(Some(0));
    let sample = admin
        .find_dead_letters(&filter, Page::oldest(SAMPLE).without_bodies())
        .await?;
    Ok(Selection {
        filter,
        tally,
        sample,
    })
}

/// Reads one dead letter, in whatever state it is, as it may be shown.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredDeadLetter, OpsError> {
    read(admin, id, Page::latest(1)).await
}

/// Reads one dead letter as it is stored: what is done with it starts from that.
pub(crate) async fn stored(admin: &dyn StoreAdmin, id: i64) -> Result<StoredDeadLetter, OpsError> {
    read(admin, id, Page::latest(1).as_stored()).await
}

async fn read(admin: &dyn StoreAdmin, id: i64, page: Page) -> Result<StoredDeadLetter, OpsError> {
    let filter = DeadLetterFilter {
        id: Some(id),
        ..DeadLetterFilter::any()
    };
    let found = admin.find_dead_letters(&filter, page).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "there is no dead letter {id}; `sagabus dead-letters list` shows those there are [SB0401]"
        ))
    })
}

/// What is wanted of a dead letter that is edited.
#[derive(Clone, Debug)]
pub struct Wanted<'k> {
    /// The body that it gets.
    pub body: Bytes,
    /// Who it is from then on.
    pub identity: Identity,
    /// What opens its body and seals the new one, where it is sealed.
    pub keyring: Option<&'k Keyring>,
}

/// Says what an edited dead letter would be sent as: checks the new body, and seals it where the
/// old one is sealed, with the same key. Changes nothing.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id; [`OpsError::Refused`] where it is not open,
/// its messages are JSON and the new body is not, its body was not kept, or it is sealed and the
/// keyring does not open it.
pub async fn plan_edit(
    admin: &dyn StoreAdmin,
    id: i64,
    wanted: Wanted<'_>,
) -> Result<Edit, OpsError> {
    let found = stored(admin, id).await?;
    let refused = |fact: String| Err(OpsError::Refused(fact));
    if found.status != DeadLetterStatus::Open {
        return refused(format!(
            "dead letter {id} is {} [SB0403]",
            found.status.as_str()
        ));
    }
    if found.envelope.headers.get(DROPPED).is_some() {
        return refused(format!(
            "the body of dead letter {id} was not kept [SB0503]"
        ));
    }
    let content_type = found.envelope.headers.get(CONTENT_TYPE);
    let is_json = content_type.is_none_or(|text| text.contains("json"));
    if let Some(error) = serde_json::from_slice::<IgnoredAny>(&wanted.body)
        .err()
        .filter(|_| is_json)
    {
        return refused(format!("the new body is no JSON: {error} [SB0407]"));
    }
    let message = match wanted.identity {
        Identity::Kept => found.envelope.id,
        Identity::New => MessageId::new(),
    };
    Ok(Edit {
        id,
        message,
        after: sealed_as(&found.envelope, message, wanted)?,
        before: found.envelope.body,
    })
}

/// Seals the new body of a message where the old one is sealed.
fn sealed_as(before: &Envelope, message: MessageId, wanted: Wanted<'_>) -> Result<Bytes, OpsError> {
    let Some(key) = before.headers.get(SEALED) else {
        return Ok(wanted.body);
    };
    let Some(keyring) = wanted.keyring else {
        return Err(OpsError::Refused(format!(
            "the body is sealed with key `{key}`; give a keyring that has it with `--keyring` [SB0501]"
        )));
    };
    let opened = keyring.open(before);
    opened.map_err(|error| OpsError::Refused(error.to_string()))?;
    let mut after = Envelope {
        id: message,
        body: wanted.body,
        ..before.clone()
    };
    let sealed = keyring.seal_again(&mut after);
    sealed.map_err(|error| OpsError::Refused(error.to_string()))?;
    Ok(after.body)
}

/// Redrives a dead letter with another body.
///
/// # Errors
/// [`OpsError::Refused`] where it was dealt with, or died anew, since it was looked at.
pub async fn edit(admin: &dyn StoreAdmin, operator: &Operator, edit: Edit) -> Result<(), OpsError> {
    let id = edit.id;
    let action = Action::EditDeadLetter(edit);
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(OpsError::Refused(format!(
            "dead letter {id} changed meanwhile; look at it again [SB0406]"
        ))),
    }
}
