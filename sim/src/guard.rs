//! What keeps messages safe, each to be switched off: a simulation that finds nothing then finds
//! nothing at all.

use sagabus_core::MessageId;
use sagabus_core::store::{Birth, Group, Instance, Question};
use sagabus_core::unit_of_work::{Source, UnitOfWork};

/// One guard of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A delivery is acked after the commit.
    AckLast,
    /// The inbox knows what was taken over.
    Inbox,
    /// A lease ends, and its row is claimed by another host.
    LeaseEnds,
    /// What a unit sends is written in its transaction.
    OneTransaction,
    /// A handler's own rows are written in its unit's transaction.
    OwnRows,
    /// An instance moves by the version that was seen.
    Version,
    /// A commit in doubt is made again.
    Doubt,
    /// A row leaves the outbox after its confirm.
    Confirm,
    /// A unit that loses keeps no inbox row.
    LoserKeepsNothing,
    /// What a broker brings again has the identity that it had.
    Identity,
    /// A dead letter is written where a message is given up.
    DeadLetter,
    /// Where order is declared, a row waits for the older one of its key.
    Order,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 12] = [
        Self::AckLast,
        Self::Inbox,
        Self::LeaseEnds,
        Self::OneTransaction,
        Self::OwnRows,
        Self::Version,
        Self::Doubt,
        Self::Confirm,
        Self::LoserKeepsNothing,
        Self::Identity,
        Self::DeadLetter,
        Self::Order,
    ];

    /// Returns its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AckLast => "ack-last",
            Self::Inbox => "inbox",
            Self::LeaseEnds => "lease-ends",
            Self::OneTransaction => "one-transaction",
            Self::OwnRows => "own-rows",
            Self::Version => "version",
            Self::Doubt => "doubt",
            Self::Confirm => "confirm",
            Self::LoserKeepsNothing => "loser-keeps-nothing",
            Self::Identity => "identity",
            Self::DeadLetter => "dead-letter",
            Self::Order => "order",
        }
    }

    /// Finds a guard by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.as_str() == name)
    }
}

/// Makes a group as an engine without the guard would write it. `known` looks an instance up.
pub(crate) fn weakened(
    guard: Guard,
    group: &Group,
    known: impl Fn(Question) -> Option<Instance>,
) -> Group {
    let mut group = group.clone();
    for unit in &mut group.units {
        match guard {
            Guard::Inbox => forget(unit),
            Guard::Version => {
                if let Some(change) = &mut unit.instance {
                    let instance = Some(change.id.clone());
                    let question = Question {
                        instance,
                        ..Question::default()
                    };
                    change.expected = known(question).map_or(0, |instance| instance.version);
                }
            }
            Guard::DeadLetter => unit.failed = None,
            _ => {}
        }
    }
    if guard == Guard::Order {
        for placement in &mut group.placements {
            let is_free = placement.birth == Birth::Available;
            let unit = group.units.get_mut(placement.unit);
            let sent = unit.and_then(|unit| unit.outgoing.get_mut(placement.outgoing));
            if let Some(outgoing) = sent.filter(|_| is_free || placement.birth == Birth::Leased) {
                outgoing.key = None;
            }
        }
    }
    group
}

/// Gives the broker's messages that a unit answers identities that nobody knows.
fn forget(unit: &mut UnitOfWork) {
    for source in &mut unit.sources {
        if let Source::Broker { message_id, .. } = source {
            *message_id = MessageId::new();
        }
    }
}

/// Splits off what a group's units send, as a group of its own.
pub(crate) fn split(group: &Group) -> (Group, Group) {
    let (mut first, mut second) = (group.clone(), group.clone());
    for unit in &mut first.units {
        unit.outgoing.clear();
    }
    first.placements.clear();
    for unit in &mut second.units {
        let outgoing = std::mem::take(&mut unit.outgoing);
        *unit = UnitOfWork {
            outgoing,
            ..UnitOfWork::default()
        };
    }
    second.settles.clear();
    (first, second)
}

/// Leaves of a group the sources of its units alone.
pub(crate) fn sources_of(group: &Group, index: usize) -> Group {
    let mut sources = Group::default();
    if let Some(unit) = group.units.get(index) {
        let brought = |source: &&Source| matches!(source, Source::Broker { .. });
        sources.units.push(UnitOfWork {
            sources: unit.sources.iter().filter(brought).copied().collect(),
            ..UnitOfWork::default()
        });
    }
    sources
}
