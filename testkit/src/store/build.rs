//! Units of work and groups in few words.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::clock;
use sagabus_core::endpoint::{Destination, EndpointName, Order};
use sagabus_core::envelope::{Due, Envelope, Identity, Outgoing, Timer};
use sagabus_core::headers::Headers;
use sagabus_core::id::{InstanceId, MessageId};
use sagabus_core::store::{Birth, Group, Place, Placement, Target};
use sagabus_core::unit_of_work::{
    Attempt, DeadLetter, HistoryDetail, HistoryEntry, InstanceChange, InstanceStatus,
    KeyAfterDeath, Reason, RowKey, Source, UnitOfWork,
};

use super::harness::{HOUR, data};

/// A unit of work together with where its messages go.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    unit: UnitOfWork,
    places: Vec<(usize, Place, Birth)>,
}

/// Starts a unit that answers nothing, like what an API sends.
pub fn api() -> Plan {
    Plan::default()
}

/// Starts a unit that answers a message from a broker.
pub fn broker(at: &Target, message_id: MessageId) -> Plan {
    api().and_broker(at, message_id)
}

/// Starts a unit that answers a claimed row.
pub fn row(key: RowKey) -> Plan {
    api().and_row(key)
}

impl Plan {
    /// Answers one more message from a broker.
    #[must_use]
    pub fn and_broker(mut self, at: &Target, message_id: MessageId) -> Self {
        self.unit.sources.push(Source::Broker {
            endpoint: at.id,
            message_id,
        });
        self
    }

    /// Answers one more claimed row.
    #[must_use]
    pub fn and_row(mut self, key: RowKey) -> Self {
        self.unit.sources.push(Source::Row(key));
        self
    }

    /// Moves an instance on from `expected`; 0 creates it.
    #[must_use]
    pub fn moves(self, id: &InstanceId, expected: i64) -> Self {
        self.changes(change(id, expected))
    }

    /// Ends an instance.
    #[must_use]
    pub fn completes(self, id: &InstanceId, expected: i64) -> Self {
        self.changes(InstanceChange {
            status: InstanceStatus::Completed,
            ..change(id, expected)
        })
    }

    /// Changes an instance in every detail.
    #[must_use]
    pub fn changes(mut self, change: InstanceChange) -> Self {
        self.unit.instance = Some(change);
        self
    }

    /// Removes timers of the instance that moves.
    ///
    /// # Panics
    /// When the unit moves no instance.
    #[must_use]
    pub fn disarms(mut self, names: &[&str]) -> Self {
        let change = self.unit.instance.as_mut().expect("an instance moves");
        change
            .disarmed
            .extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// Sends a message.
    #[must_use]
    pub fn sends(mut self, message: Message) -> Self {
        let index = self.unit.outgoing.len();
        self.unit.outgoing.push(message.outgoing);
        let birth = message.birth;
        let places = message.places.into_iter();
        self.places
            .extend(places.map(|place| (index, place, birth)));
        self
    }

    /// Records what happened with one message.
    #[must_use]
    pub fn records(mut self, at: &Target, message_id: MessageId) -> Self {
        self.unit.history.push(HistoryEntry {
            endpoint: at.id,
            message_id,
            message_type: "shop.order-placed".into(),
            correlation_id: message_id.into(),
            instance: self
                .unit
                .instance
                .as_ref()
                .map(|change| (change.id.clone(), change.expected + 1)),
            detail: HistoryDetail {
                attempt: 1,
                micros: 250,
                ..HistoryDetail::default()
            },
        });
        self
    }

    /// Records what was sent so far and where it was placed, in the last entry.
    #[must_use]
    pub(super) fn tells_what_it_sent(mut self) -> Self {
        let detail = &mut self.unit.history.last_mut().expect("an entry").detail;
        let sent = self.unit.outgoing.iter();
        detail.sent = sent
            .map(|one| (one.envelope.id, one.envelope.message_type.clone()))
            .collect();
        for (at, place, _) in &self.places {
            if let Place::Endpoint(target) = place {
                let at = u32::try_from(*at).expect("few messages");
                detail.placed.push((at, target.name.clone()));
            }
        }
        self
    }

    /// Notes in the last entry what caused its message.
    #[must_use]
    pub(super) fn tells_its_cause(mut self, cause: MessageId) -> Self {
        let entry = self.unit.history.last_mut().expect("an entry");
        entry.detail.causation_id = Some(cause);
        self
    }

    /// Gives a message up.
    #[must_use]
    pub fn gives_up(mut self, dead: DeadLetter) -> Self {
        self.unit.failed = Some(Box::new(dead));
        self
    }
}

/// A message and where it goes.
#[derive(Clone, Debug)]
pub struct Message {
    outgoing: Outgoing,
    places: Vec<Place>,
    birth: Birth,
}

/// Makes a message for an endpoint, born available.
pub fn message(to: &Target) -> Message {
    message_for(Place::Endpoint(to.clone()))
}

/// Makes a message for any place, born available.
pub(super) fn message_for(place: Place) -> Message {
    let headers: Headers = [("content-type", "application/json"), ("note", "grüße")]
        .into_iter()
        .collect();
    let envelope = Envelope {
        id: MessageId::new(),
        message_type: "shop.order-placed".into(),
        headers,
        body: Bytes::from_static(br#"{"order":1}"#),
    };
    Message {
        outgoing: Outgoing::from_envelope(envelope, Destination::Subscribers),
        places: vec![place],
        birth: Birth::Available,
    }
}

/// Makes a message for a transport's address, born available.
pub(super) fn message_to_address(address: &str) -> Message {
    message_for(Place::Address {
        address: address.to_owned(),
        order: Order::Unordered,
    })
}

impl Message {
    /// Returns its identity.
    pub fn id(&self) -> MessageId {
        self.outgoing.envelope.id
    }

    /// Returns its envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.outgoing.envelope
    }

    /// Sends it to one more place.
    #[must_use]
    pub fn and_to(mut self, target: &Target) -> Self {
        self.places.push(Place::Endpoint(target.clone()));
        self
    }

    /// Sends it nowhere: an event that nobody takes.
    #[must_use]
    pub fn to_nobody(mut self) -> Self {
        self.places.clear();
        self
    }

    /// Gives it another identity, type, headers or body.
    #[must_use]
    pub fn enveloped(mut self, envelope: Envelope) -> Self {
        self.outgoing.envelope = envelope;
        self
    }

    /// Gives it a key.
    #[must_use]
    pub fn keyed(mut self, key: &str) -> Self {
        self.outgoing.key = Some(key.to_owned());
        self
    }

    /// Says when it may be received.
    #[must_use]
    pub fn due(mut self, due: Due) -> Self {
        self.outgoing.due = due;
        self
    }

    /// Says how long it is wanted.
    #[must_use]
    pub fn expires_after(mut self, wanted: Duration) -> Self {
        self.outgoing.expires_after = Some(wanted);
        self
    }

    /// Makes it a timer.
    #[must_use]
    pub fn timer(mut self, owner: &InstanceId, name: &str, generation: u64) -> Self {
        self.outgoing.timer = Some(Timer {
            owner: owner.clone(),
            name: name.to_owned(),
            generation,
        });
        self
    }

    /// Tells of failed attempts that came before.
    #[must_use]
    pub fn failed_before(mut self, attempts: Vec<Attempt>) -> Self {
        self.outgoing.attempts = attempts;
        self
    }

    /// Says that its identity was given by the caller.
    #[must_use]
    pub fn given(mut self) -> Self {
        self.outgoing.identity = Identity::Given;
        self
    }

    /// Is born leased.
    #[must_use]
    pub fn leased(self) -> Self {
        self.born(Birth::Leased)
    }

    /// Is born in another condition.
    #[must_use]
    pub fn born(mut self, birth: Birth) -> Self {
        self.birth = birth;
        self
    }
}

/// Puts units together to a group, whose leases outlive the test.
pub(super) fn group(plans: impl IntoIterator<Item = Plan>) -> Group {
    let mut group = Group {
        lease: HOUR,
        ..Group::default()
    };
    for (index, plan) in plans.into_iter().enumerate() {
        let places = plan.places.into_iter();
        group
            .placements
            .extend(places.map(|(outgoing, place, birth)| Placement {
                unit: index,
                outgoing,
                place,
                birth,
            }));
        group.units.push(plan.unit);
    }
    group
}

/// Changes an instance in the plainest way.
pub(super) fn change(id: &InstanceId, expected: i64) -> InstanceChange {
    InstanceChange {
        id: id.clone(),
        expected,
        status: InstanceStatus::Running,
        state: Some("waiting".into()),
        schema_version: 1,
        data: data("as it was"),
        timers: BTreeMap::new(),
        disarmed: Vec::new(),
        origin: None,
        labels: None,
    }
}

/// Makes failed attempts, one per error.
pub(super) fn attempts(errors: &[&str]) -> Vec<Attempt> {
    errors
        .iter()
        .map(|&error| Attempt {
            at: clock::now(),
            host: "first".to_owned(),
            error: error.to_owned(),
            excused: 0,
        })
        .collect()
}

/// Makes a dead letter of a message that failed once.
pub fn dead_letter(endpoint: &EndpointName, envelope: &Envelope) -> DeadLetter {
    DeadLetter {
        endpoint: endpoint.clone(),
        envelope: envelope.clone(),
        reason: Reason::AttemptsExhausted,
        attempts: attempts(&["no such order"]),
        key: None,
        instance: None,
        key_after: KeyAfterDeath::GoesOn,
    }
}
