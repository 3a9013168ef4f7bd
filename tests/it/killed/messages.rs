//! Transfers between two accounts, some of which bounce: messages and machine.

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

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    id: i64,
}

impl Saga for Transfer {
    type Key = i64;
    type State = Leg;
}

pub(crate) fn transfer_machine() -> StateMachine<Transfer> {
    // Far beyond any test: the timer is armed and cancelled, and must never fire.
    let deadline = Duration::from_secs(3600);
    StateMachine::named("transfer")
        .initially(
            Transfer::when::<StartTransfer>()
                .init(|m| Transfer { id: m.id })
                .send(|t, _| Debit { id: t.id })
                .schedule("deadline", deadline, |t, _| Overdue { id: t.id })
                .transition_to(Leg::Debiting),
        )
        .during(
            Leg::Debiting,
            Transfer::when::<Debited>()
                .send(|t, _| Credit { id: t.id })
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
                .send(|t, _| Refund { id: t.id })
                .transition_to(Leg::Refunding),
        )
        .during(
            Leg::Refunding,
            Transfer::when::<Refunded>()
                .unschedule("deadline")
                .publish(|t, _| Settled { id: t.id })
                .finalize(),
        )
        .during_any(Transfer::when::<Overdue>().stay())
}

/// Every seventh credit bounces.
pub(crate) fn bounces(id: i64) -> bool {
    id % 7 == 3
}

/// Every eleventh credit fails twice before it succeeds, so that it is written down for later.
pub(crate) fn stumbles(id: i64) -> bool {
    id % 11 == 5
}

/// Every thirteenth settlement cannot be noted, ever: it becomes a dead letter.
pub(crate) fn cannot_be_noted(id: i64) -> bool {
    id % 13 == 8
}

/// Every second one of these fails for good at its first try.
pub(crate) fn is_hopeless(id: i64) -> bool {
    id % 26 == 21
}

/// How many cents a transfer moves: all distinct, so that a discrepancy names its transfer.
pub(crate) fn cents(id: i64) -> i64 {
    1000 + id
}
