//! Transfers between accounts: messages, and the machine that moves the money or gives it back.

use std::time::Duration;

use sagabus::Kind;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

/// Declares a message about transfer `id`.
macro_rules! message {
    ($kind:ident $name:ident $type:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) id: i64,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}

        impl Correlate<Transfer> for $name {
            fn key(&self) -> i64 {
                self.id
            }
        }
    };
}

message!(Command StartTransfer "transfer.start");
message!(Command Debit "account.debit");
message!(Command Credit "account.credit");
message!(Command Refund "account.refund");
message!(Event Debited "account.debited");
message!(Event Credited "account.credited");
message!(Event Bounced "account.bounced");
message!(Event Refunded "account.refunded");
message!(Event Overdue "transfer.overdue");
message!(Event Settled "transfer.settled");

/// Where a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leg {
    Debiting,
    Crediting,
    Refunding,
}

impl SagaState for Leg {
    const ALL: &'static [Self] = &[Self::Debiting, Self::Crediting, Self::Refunding];

    fn name(self) -> &'static str {
        match self {
            Self::Debiting => "debiting",
            Self::Crediting => "crediting",
            Self::Refunding => "refunding",
        }
    }
}

/// One transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    id: i64,
}

impl Saga for Transfer {
    type Key = i64;
    type State = Leg;
}

/// The kind under which transfers are stored.
pub(crate) const KIND: &str = "transfer";

pub(crate) fn transfer_machine() -> StateMachine<Transfer> {
    StateMachine::named(KIND)
        .initially(
            Transfer::when::<StartTransfer>()
                .init(|m| Transfer { id: m.id })
                .send(|t, _| Debit { id: t.id })
                .transition_to(Leg::Debiting),
        )
        .during(
            Leg::Debiting,
            Transfer::when::<Debited>()
                .send(|t, _| Credit { id: t.id })
                .schedule_after(
                    "deadline",
                    |t, _| deadline(t.id),
                    |t, _| Overdue { id: t.id },
                )
                .transition_to(Leg::Crediting),
        )
        .during(
            Leg::Crediting,
            Transfer::when::<Credited>()
                .unschedule("deadline")
                .publish(|t, _| Settled { id: t.id })
                .finalize(),
        )
        .during(
            Leg::Crediting,
            Transfer::when::<Bounced>()
                .unschedule("deadline")
                .send(|t, _| Refund { id: t.id })
                .transition_to(Leg::Refunding),
        )
        .during(
            Leg::Crediting,
            Transfer::when::<Overdue>()
                .send(|t, _| Refund { id: t.id })
                .transition_to(Leg::Refunding),
        )
        .during(
            Leg::Refunding,
            Transfer::when::<Refunded>()
                .publish(|t, _| Settled { id: t.id })
                .finalize(),
        )
}

/// Of those that nobody answers the timer fires; of all others it is far beyond any run.
fn deadline(id: i64) -> Duration {
    if vanishes(id) {
        Duration::from_millis(300)
    } else {
        Duration::from_secs(24 * 3600)
    }
}

/// Every seventh credit bounces.
pub(crate) fn bounces(id: i64) -> bool {
    id % 7 == 3
}

/// Every ninth credit is not answered at all.
pub(crate) fn vanishes(id: i64) -> bool {
    id % 9 == 4 && !bounces(id)
}

/// Every eleventh credit fails twice before it succeeds, so that it is written down for later.
pub(crate) fn stumbles(id: i64) -> bool {
    id % 11 == 5
}

/// Every thirteenth settlement cannot be noted, ever: it becomes a dead letter.
pub(crate) fn cannot_be_noted(id: i64) -> bool {
    id % 13 == 8
}

/// How many cents a transfer moves: all distinct, so that a discrepancy names its transfer.
pub(crate) fn cents(id: i64) -> i64 {
    1000 + id
}

/// What a transfer must leave in the ledger.
pub(crate) fn expected(id: i64) -> Vec<(&'static str, i64)> {
    let back = bounces(id) || vanishes(id);
    let mut legs = vec![("debit", -cents(id))];
    legs.push((if back { "refund" } else { "credit" }, cents(id)));
    if !cannot_be_noted(id) {
        legs.push(("settled", 0));
    }
    legs
}
