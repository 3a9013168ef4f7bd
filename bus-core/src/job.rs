//! A message on its way to its handler: how it came, decoded or not, with its place.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::dispatch::Undispatchable;
use crate::envelope::Envelope;
use crate::faults::{self, Point};
use crate::handler::{Decoded, Subscriber};
use crate::handling::Endpoint;
use crate::headers;
use crate::id::InstanceId;
use crate::intake::{Arrival, Work};
use crate::unit_of_work::LabelId;

/// A message with its subscriber, or why it has none.
pub(crate) type Dispatched = Result<(Arc<dyn Subscriber>, Decoded), Undispatchable>;

/// A message that has been decoded, or cannot be.
pub(crate) struct Job {
    pub(crate) arrival: Arrival,
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) decoded: Dispatched,
}

/// Decodes a message.
pub(crate) fn decode(endpoint: &Endpoint, work: Work) -> Job {
    let Work { arrival, place } = work;
    let decoded = endpoint.dispatch.decode(arrival.envelope());
    let decoded = decoded.map(|(subscriber, decoded)| (Arc::clone(subscriber), decoded));
    faults::at(Point::Decoded);
    Job {
        arrival,
        place,
        decoded,
    }
}

impl Job {
    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        self.decoded.as_ref().ok()?.1.instance.as_ref()
    }

    /// Says whether the message may be merged with others of its instance.
    pub(crate) fn merges(&self) -> bool {
        let decoded = self.decoded.as_ref().ok();
        decoded.is_some_and(|(subscriber, one)| one.instance.is_some() && subscriber.merges())
    }

    pub(crate) fn label(&self) -> Option<&LabelId> {
        self.decoded.as_ref().ok()?.1.label.as_ref()
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.arrival.key()
    }

    pub(crate) fn into_work(self) -> Work {
        Work {
            arrival: self.arrival,
            place: self.place,
        }
    }
}

impl Arrival {
    pub(crate) fn envelope(&self) -> &Envelope {
        match self {
            Self::Row(row) => &row.envelope,
            Self::Delivery(delivery) => &delivery.envelope,
        }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Row(row) => row.key.as_deref(),
            Self::Delivery(delivery) => delivery.envelope.headers.get(headers::KEY),
        }
    }
}
