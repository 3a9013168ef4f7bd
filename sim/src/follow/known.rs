//! What has to be known of a whole run before it is followed.

use std::collections::{BTreeMap, BTreeSet};

use sagabus_core::endpoint::EndpointId;
use sagabus_core::store::{ClaimedRow, CommitReport, Group};
use sagabus_core::unit_of_work::{Source, UnitOfWork};
use sagabus_core::{EndpointName, InstanceId, MessageId};

use crate::seen::{Ended, Seen};

/// A message at an endpoint.
pub(super) type Case = (MessageId, EndpointName);

/// Which message is whose, by what stores and brokers call it.
#[derive(Debug)]
pub(super) struct Known<'s> {
    endpoints: &'s BTreeMap<EndpointId, EndpointName>,
    pub(super) instance_of: BTreeMap<Case, InstanceId>,
    /// Message and destination of a row.
    case_of: BTreeMap<i64, (MessageId, String)>,
    timers: BTreeSet<MessageId>,
}

pub(super) fn report(ended: &Ended) -> Option<&CommitReport> {
    match ended {
        Ended::Heard(report) | Ended::Unheard(report) | Ended::Landed(report) => Some(report),
        Ended::Unmade | Ended::Later => None,
    }
}

impl<'s> Known<'s> {
    /// Reads a run.
    pub(super) fn new(seen: &[Seen], endpoints: &'s BTreeMap<EndpointId, EndpointName>) -> Self {
        let mut known = Self {
            endpoints,
            instance_of: BTreeMap::new(),
            case_of: BTreeMap::new(),
            timers: BTreeSet::new(),
        };
        for one in seen {
            match one {
                Seen::Claimed { rows, .. } => rows.iter().for_each(|row| known.know_row(row)),
                Seen::Called { group, ended, .. } => known.know_births(group, ended),
                _ => {}
            }
        }
        for one in seen {
            if let Seen::Called { group, .. } = one {
                group
                    .units
                    .iter()
                    .for_each(|unit| known.know_instance(unit));
            }
        }
        known
    }

    fn know_row(&mut self, row: &ClaimedRow) {
        let named = (row.envelope.id, row.destination.clone());
        self.case_of.insert(row.row.id, named);
    }

    fn know_births(&mut self, group: &Group, ended: &Ended) {
        for (at, placement) in group.placements.iter().enumerate() {
            let one = &group.units[placement.unit].outgoing[placement.outgoing];
            if one.timer.is_some() {
                self.timers.insert(one.envelope.id);
            }
            let leased = report(ended).and_then(|report| *report.leased.get(at)?);
            if let Some(row) = leased {
                let place = placement.place.as_stored(&one.envelope.message_type);
                self.case_of.insert(row.id, (one.envelope.id, place));
            }
        }
    }

    fn know_instance(&mut self, unit: &UnitOfWork) {
        let Some(change) = &unit.instance else {
            return;
        };
        for source in &unit.sources {
            if let Some(case) = self.case(source) {
                self.instance_of.insert(case, change.id.clone());
            }
        }
    }

    /// Names the message that a unit answers. `None` for a timer.
    pub(super) fn case(&self, source: &Source) -> Option<Case> {
        let case = match source {
            Source::Broker {
                endpoint,
                message_id,
            } => (*message_id, self.endpoints.get(endpoint)?.clone()),
            Source::Row(row) => self.local(row.id)?,
        };
        (!self.timers.contains(&case.0)).then_some(case)
    }

    /// Names the message whose row it is, where its row is for an endpoint.
    pub(super) fn local(&self, row: i64) -> Option<Case> {
        let (id, place) = self.case_of.get(&row)?;
        let name = EndpointName::new(place.strip_prefix('@')?).ok()?;
        (!self.timers.contains(id)).then_some((*id, name))
    }

    /// Names the message of a row, wherever it goes.
    pub(super) fn message(&self, row: i64) -> Option<MessageId> {
        self.case_of.get(&row).map(|(id, _)| *id)
    }

    /// Says whether a message is a timer's.
    pub(super) fn is_timer(&self, id: MessageId) -> bool {
        self.timers.contains(&id)
    }
}
