//! What operators do with rows of the in-memory outbox, and with what it has sent.

use serde_json::json;

use super::change::{Done, sorted, summed};
use super::database::Database;
use super::outbox::Place;
use crate::admin::{RowVerb, StoredSent};
use crate::clock::Timestamp;
use crate::message::Kind;
use crate::store::Target;

impl Database {
    /// Does with rows what a verb says.
    pub(super) fn change_rows(&mut self, ids: &[i64], verb: &RowVerb, now: Timestamp) -> Done {
        let rows = sorted(ids).into_iter();
        match verb {
            RowVerb::Park => summed(rows.filter_map(|id| self.outbox.set_aside(id, now))),
            RowVerb::Release => self.release_rows(ids, now),
            RowVerb::Expedite => summed(rows.filter_map(|id| self.outbox.expedite(id, now))),
            RowVerb::Readdress { to } => self.readdress(ids, to, now),
            RowVerb::Discard => summed(rows.filter_map(|id| self.outbox.discard(id, now))),
            RowVerb::Purge => {
                // What was parked before stays as it is by that, and goes with the others.
                for id in rows.clone() {
                    self.outbox.set_aside(id, now);
                }
                summed(rows.filter_map(|id| self.outbox.discard(id, now)))
            }
        }
    }

    fn release_rows(&mut self, ids: &[i64], now: Timestamp) -> Done {
        let owner = |routes: &crate::store::Routes, message_type: &str| -> Option<Target> {
            let targets = routes.subscribers.get(message_type)?;
            targets
                .iter()
                .find(|target| {
                    let key = (message_type.to_owned(), target.name.clone());
                    self.subscriptions.get(&key) == Some(&Kind::Command)
                })
                .cloned()
        };
        let mut released = Vec::new();
        for id in sorted(ids) {
            let routes = &self.routes;
            let row = self
                .outbox
                .release(id, |message_type| owner(routes, message_type), now);
            released.extend(row);
        }
        summed(released.into_iter())
    }

    fn readdress(&mut self, ids: &[i64], to: &str, now: Timestamp) -> Done {
        let rows = sorted(ids).into_iter();
        let mut known = self.routes.endpoints.values();
        let target = to.strip_prefix('@').map(|name| {
            let is_it = |target: &&Target| target.name.as_str() == name;
            known.find(is_it).cloned()
        });
        let place = match target {
            Some(None) => return Done::default(),
            Some(Some(target)) => Place::Endpoint(target),
            None => Place::Address(to.to_owned()),
        };
        let mut done = summed(rows.filter_map(|id| self.outbox.readdress(id, &place, now)));
        for detail in &mut done.1 {
            detail["to"] = to.into();
        }
        done
    }

    /// Sends again what brokers took, in the order in which it was written.
    pub(super) fn republish(&mut self, ids: &[i64], now: Timestamp) -> Done {
        let sent = sorted(ids).into_iter();
        let sent = sent.filter_map(|id| self.outbox.republish(id, now));
        let detail = |one: StoredSent| {
            let detail = json!({
                "id": one.id,
                "message_id": one.message,
                "message_type": one.message_type,
                "destination": one.destination,
            });
            (one.id, detail)
        };
        sent.map(detail).unzip()
    }
}
