//! The commit calls for the most frequent groups of one: a unit that answers one message, moves no
//! instance and sends at most one message in no line; and an API's one message.

use sagabus_core::StoreError;
use sagabus_core::clock::micros;
use sagabus_core::endpoint::EndpointId;
use sagabus_core::envelope::{Identity, Outgoing};
use sagabus_core::store::{Birth, Group, Place, Placement};
use sagabus_core::unit_of_work::{HistoryEntry, Reason, Source, UnitOfWork};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Encode, Postgres, Type};

use super::commit::Door;
use crate::row;

const COMMIT_ONE: &str = "select sagabus.commit_one_v1( \
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
    $21, $22, $23)";

const SEND_ONE: &str = "select sagabus.send_one_v1( \
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// The one unit of a group that has no more to it.
pub(super) struct One<'a> {
    /// `None`: an API sends.
    source: Option<&'a Source>,
    sent: Option<(&'a Placement, &'a Outgoing)>,
    noted: Option<&'a HistoryEntry>,
}

impl<'a> One<'a> {
    /// Returns nothing where the call for many is needed.
    pub(super) fn of(group: &'a Group, door: Door) -> Option<Self> {
        let [unit] = group.units.as_slice() else {
            return None;
        };
        let source = match unit.sources.as_slice() {
            [source] => Some(source),
            // The call ends with a transaction, which a stranger's does not.
            [] if door != Door::Stranger && unit.outgoing.len() == 1 => None,
            _ => return None,
        };
        let is_plain = group.settles.is_empty() && unit.instance.is_none() && unit.failed.is_none();
        let sent = match (unit.outgoing.as_slice(), group.placements.as_slice()) {
            ([], []) => None,
            ([outgoing], [placement])
                if placement.unit == 0
                    && placement.outgoing == 0
                    // An API's may be recognised when it is sent again.
                    && (source.is_none() || recognised_at(outgoing, placement).is_none())
                    && is_simple(unit, outgoing, placement) =>
            {
                Some((placement, outgoing))
            }
            _ => return None,
        };
        let noted = match unit.history.as_slice() {
            [] => None,
            [entry] if entry.instance.is_none() && source.is_some() => Some(entry),
            _ => return None,
        };
        is_plain.then_some(Self {
            source,
            sent,
            noted,
        })
    }

    /// Returns the call's text.
    pub(super) fn text(&self) -> &'static str {
        match self.source {
            Some(_) => COMMIT_ONE,
            None => SEND_ONE,
        }
    }

    /// Encodes it in the order of the function's arguments.
    pub(super) fn encode(&self, group: &Group, door: Door) -> Result<PgArguments, StoreError> {
        let mut values = Values::default();
        values.add(self.sent.map(|_| group.routes_version))?;
        values.add(micros(group.lease))?;
        values.add(door.as_number())?;
        let Some(source) = self.source else {
            values.add_recognised(self.sent)?;
            values.add_sent(self.sent)?;
            return Ok(values.0);
        };
        let (accepted, row) = match source {
            Source::Broker {
                endpoint,
                message_id,
            } => (Some((message_id.as_uuid(), endpoint.0)), None),
            Source::Row(row) => (None, Some(row)),
        };
        values.add(accepted.map(|source| source.0))?;
        values.add(accepted.map(|source| source.1))?;
        values.add(row.map(|row| row.id))?;
        values.add(row.map(|row| row.epoch))?;
        values.add_sent(self.sent)?;
        values.add_noted(self.noted)?;
        Ok(values.0)
    }
}

/// Says whether a message becomes a row that needs nothing but its own insert, and perhaps one that
/// recognises it.
pub(super) fn is_simple(unit: &UnitOfWork, outgoing: &Outgoing, placement: &Placement) -> bool {
    outgoing.timer.is_none()
        && outgoing.attempts.is_empty()
        && !row::is_in_line(unit, outgoing, &placement.place)
}

/// Returns where a message is recognised by its identity.
pub(super) fn recognised_at(outgoing: &Outgoing, placement: &Placement) -> Option<EndpointId> {
    match (outgoing.identity, &placement.place) {
        (Identity::Given, Place::Endpoint(target)) => Some(target.id),
        _ => None,
    }
}

#[derive(Default)]
struct Values(PgArguments);

impl Values {
    fn add<'v, T>(&mut self, value: T) -> Result<(), StoreError>
    where
        T: Encode<'v, Postgres> + Type<Postgres>,
    {
        self.0.add(value).map_err(StoreError::Refused)
    }

    fn add_recognised(&mut self, sent: Option<(&Placement, &Outgoing)>) -> Result<(), StoreError> {
        let sent = sent.and_then(|(placement, outgoing)| {
            let endpoint = recognised_at(outgoing, placement)?;
            Some((outgoing.envelope.id.as_uuid(), endpoint.0))
        });
        self.add(sent.map(|one| one.0))?;
        self.add(sent.map(|one| one.1))
    }

    fn add_sent(&mut self, sent: Option<(&Placement, &Outgoing)>) -> Result<(), StoreError> {
        let envelope = sent.map(|(_, outgoing)| &outgoing.envelope);
        let parked = sent.and_then(|(one, _)| row::parked(one));
        let destination =
            sent.map(|(one, outgoing)| one.place.as_stored(&outgoing.envelope.message_type));
        let wanted = sent.and_then(|(_, outgoing)| outgoing.expires_after.map(micros));
        let is_leased = sent.is_some_and(|(one, _)| one.birth == Birth::Leased && parked.is_none());
        self.add(envelope.map(|one| one.id.as_uuid()))?;
        self.add(envelope.map(|one| one.message_type.as_ref()))?;
        self.add(destination)?;
        self.add(sent.and_then(|(_, outgoing)| outgoing.key.as_deref()))?;
        self.add(envelope.map(|one| one.headers.to_json()))?;
        self.add(envelope.map(|one| one.body.as_ref()))?;
        self.add(is_leased)?;
        self.add(sent.and_then(|(_, outgoing)| row::due_after(outgoing)))?;
        self.add(sent.and_then(|(_, outgoing)| row::due_at(outgoing)))?;
        self.add(wanted)?;
        self.add(parked.map(Reason::as_str))
    }

    fn add_noted(&mut self, noted: Option<&HistoryEntry>) -> Result<(), StoreError> {
        let detail = noted
            .map(|entry| serde_json::to_vec(&entry.detail))
            .transpose();
        self.add(noted.map(|entry| entry.endpoint.0))?;
        self.add(noted.map(|entry| entry.message_id.as_uuid()))?;
        self.add(noted.map(|entry| entry.message_type.as_ref()))?;
        self.add(noted.map(|entry| entry.correlation_id.as_uuid()))?;
        self.add(detail.map_err(|error| StoreError::Refused(error.into()))?)
    }
}
