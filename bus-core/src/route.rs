//! Where a message goes: command to owner, event to subscribers; looked up when the unit commits.

use std::sync::{Arc, PoisonError};

use crate::endpoint::{Destination, Order};
use crate::envelope::Outgoing;
use crate::id::MessageId;
use crate::message::Kind;
use crate::store::{Birth, Place, Placement, Routes, Target};
use crate::sync::RwLock;
use crate::transport::address;
use crate::transports::Transports;
use crate::unit_of_work::{Reason, UnitOfWork};

/// Knows who takes what. Shared by everything that sends.
///
/// Where no transport carries a message type, its owner and subscribers are endpoints of this
/// database; where one does, it goes to that transport's address and only self-addressed rows stay
/// local.
#[derive(Debug)]
pub struct Router {
    routes: RwLock<Arc<Routes>>,
    transports: Arc<Transports>,
}

impl Router {
    /// Makes a router over the routes that the store told.
    pub fn new(routes: Routes, transports: Arc<Transports>) -> Self {
        Self {
            routes: RwLock::new(Arc::new(routes)),
            transports,
        }
    }

    /// Returns the routes as this host knows them.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes newer routes; older ones are ignored.
    pub fn learn(&self, routes: Routes) {
        let mut known = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if routes.version > known.version {
            *known = Arc::new(routes);
        }
    }

    /// Says which rows the outgoing messages of a unit become, in order. `unit` is its index in
    /// the group.
    pub fn place(&self, routes: &Routes, unit: usize, work: &UnitOfWork) -> Vec<Placement> {
        let mut placements = Vec::with_capacity(work.outgoing.len());
        for (outgoing, one) in work.outgoing.iter().enumerate() {
            let mut add = |place, birth| {
                placements.push(Placement {
                    unit,
                    outgoing,
                    place,
                    birth,
                });
            };
            match &one.destination {
                Destination::Endpoint(name) => match routes.endpoints.get(name) {
                    Some(target) => add(Place::Endpoint(target.clone()), Birth::Available),
                    None => add(Place::Nowhere, Birth::Parked(Reason::NoOwner)),
                },
                Destination::Address(address) => {
                    let (address, order) = (address.clone(), Order::Unordered);
                    add(Place::Address { address, order }, Birth::Available);
                }
                Destination::Owner => self.place_by_type(routes, one, Kind::Command, &mut add),
                Destination::Subscribers => self.place_by_type(routes, one, Kind::Event, &mut add),
                Destination::Watchers => {
                    let message_type = one.envelope.message_type.as_ref();
                    if routes.subscribers.contains_key(message_type) {
                        self.place_by_type(routes, one, Kind::Event, &mut add);
                    }
                }
            }
        }
        placements
    }

    fn place_by_type(
        &self,
        routes: &Routes,
        outgoing: &Outgoing,
        kind: Kind,
        add: &mut impl FnMut(Place, Birth),
    ) {
        let message_type = outgoing.envelope.message_type.as_ref();
        if let Some((name, transport)) = self.transports.of(message_type) {
            let address = name.stored(address(kind, message_type));
            let order = transport.capabilities().order;
            return add(Place::Address { address, order }, Birth::Available);
        }
        let targets: &[Target] = routes.subscribers.get(message_type).map_or(&[], |all| all);
        match (kind, targets) {
            // An event without subscribers is nobody's business; a command without owner is.
            (Kind::Event, []) => {}
            (_, []) => add(Place::Nowhere, Birth::Parked(Reason::NoOwner)),
            (Kind::Event, all) => {
                for target in all {
                    add(Place::Endpoint(target.clone()), Birth::Available);
                }
            }
            // Hosts refuse to start where a command has two owners, so the first is the only one.
            (_, [owner, ..]) => add(Place::Endpoint(owner.clone()), Birth::Available),
        }
    }
}
/// Notes in a unit's history which of its messages became rows of endpoints: what vanishes there
/// without a trace is missed by the accounts.
pub(crate) fn note_places(unit: &mut UnitOfWork, placements: &[Placement]) {
    for entry in &mut unit.history {
        entry.detail.placed.clear();
    }
    let sent: Vec<(usize, u32, MessageId)> = unit
        .history
        .iter()
        .enumerate()
        .flat_map(|(entry, one)| {
            let ids = one.detail.sent.iter().map(|(id, _)| *id);
            (0..).zip(ids).map(move |(at, id)| (entry, at, id))
        })
        .collect();
    // Both are in the order of sending, so that the next is nearly always at hand.
    let mut next = 0;
    for placement in placements {
        let outgoing = &unit.outgoing[placement.outgoing];
        let Place::Endpoint(target) = &placement.place else {
            continue;
        };
        let is_it = |at: &usize| sent[*at].2 == outgoing.envelope.id;
        let found = (next..sent.len()).chain(0..next).find(is_it);
        if let (None, Some(at)) = (&outgoing.timer, found) {
            next = at;
            let (entry, place, _) = sent[at];
            let placed = &mut unit.history[entry].detail.placed;
            placed.push((place, target.name.clone()));
        }
    }
}
