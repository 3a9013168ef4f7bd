//! How bodies are seen: opened where there is a key, and masked as their types are declared.

use bytes::Bytes;
use sagabus_core::admin::{DeadLetterFilter, Page, StoreAdmin};
use sagabus_core::envelope::Envelope;
use sagabus_core::redaction::{MASK, Redactions};
use sagabus_core::{Keyring, StoreError, headers};
use serde_json::{Value, json};

/// Says whether what is masked is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// It is not.
    #[default]
    Kept,
    /// It is: by who may see bodies, and said so.
    Lifted,
}

/// How bodies are seen by who may see them.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// What opens sealed bodies. Without it they are shown as sealed, with the key's id.
    pub keyring: Option<Keyring>,
    /// Whether what is masked is seen.
    pub masks: Masks,
}

impl Sight {
    /// Reads what is masked here: what hosts declared that are known.
    pub(crate) async fn redactions(
        &self,
        admin: &dyn StoreAdmin,
    ) -> Result<Redactions, StoreError> {
        if self.masks == Masks::Lifted {
            return Ok(Redactions::default());
        }
        let hosts = admin.hosts().await?;
        Ok(Redactions::declared(
            hosts.iter().map(|host| &host.definitions),
        ))
    }

    /// Returns a body of this type as it may be shown.
    ///
    /// # Errors
    /// When the store does not say what is masked.
    pub async fn masked(
        &self,
        admin: &dyn StoreAdmin,
        message_type: &str,
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        let redactions = self.redactions(admin).await?;
        Ok(redactions.masked(message_type, &body).unwrap_or(body))
    }

    /// Makes a message one that may be shown. One that stays sealed has no body then.
    pub(crate) fn show(&self, redactions: &Redactions, one: &mut Envelope, body_bytes: &mut u64) {
        let is_whole = one.body.len() as u64 == *body_bytes;
        if one.headers.get(headers::SEALED).is_some() {
            let keyring = self.keyring.as_ref().filter(|_| is_whole);
            let opened = keyring.map(|keys| keys.open(one));
            let Some(Ok(opened)) = opened else {
                one.body.clear();
                return;
            };
            *one = opened;
            *body_bytes = one.body.len() as u64;
        }
        if !one.body.is_empty() {
            redactions.mask(one);
        }
    }

    /// Masks what audit entries of edited dead letters keep of their bodies.
    pub(crate) async fn mask_edit(
        &self,
        admin: &dyn StoreAdmin,
        redactions: &Redactions,
        detail: &mut Value,
    ) -> Result<(), StoreError> {
        let each = detail.as_array_mut().into_iter().flatten();
        for entry in each {
            let filter = DeadLetterFilter {
                id: entry["id"].as_i64(),
                ..DeadLetterFilter::any()
            };
            let page = Page::latest(1).without_bodies();
            let found = admin.find_dead_letters(&filter, page).await?;
            for name in ["before", "after"] {
                let text = entry[name]["text"].as_str().unwrap_or_default();
                // Of what type it was nobody knows any more once the dead letter is swept.
                let shown = match found.first() {
                    Some(one) => redactions.masked(&one.envelope.message_type, text.as_bytes()),
                    None if redactions.is_empty() => None,
                    None => Some(MASK.into()),
                };
                if let (Some(shown), true) = (shown, entry[name].is_object()) {
                    entry[name] = json!({ "text": String::from_utf8_lossy(&shown) });
                }
            }
        }
        Ok(())
    }
}
