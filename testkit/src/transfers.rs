//! Transfers between accounts: what services exchange that are killed.

use sagabus_core::{Command, Event, Kind, Message};
use sagabus_saga::{Correlate, Saga, SagaState};
use serde::{Deserialize, Serialize};

/// Declares a message about transfer `id`.
macro_rules! message {
    ($kind:ident $name:ident $type:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[doc = concat!("`", $type, "`.")]
        pub struct $name {
            /// The transfer.
            pub id: i64,
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
pub enum Leg {
    /// The money is to leave its account.
    Debiting,
    /// It is to reach the other.
    Crediting,
    /// It goes back.
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
pub struct Transfer {
    /// Which one.
    pub id: i64,
}

impl Saga for Transfer {
    type Key = i64;
    type State = Leg;
}

/// Every seventh credit bounces.
pub fn bounces(id: i64) -> bool {
    id % 7 == 3
}

/// Every ninth credit is not answered at all.
pub fn vanishes(id: i64) -> bool {
    id % 9 == 4 && !bounces(id)
}

/// Every eleventh credit fails twice before it succeeds, so that it is written down for later.
pub fn stumbles(id: i64) -> bool {
    id % 11 == 5
}

/// Every thirteenth settlement cannot be noted, ever: it becomes a dead letter.
pub fn cannot_be_noted(id: i64) -> bool {
    id % 13 == 8
}

/// How many cents a transfer moves: all distinct, so that a discrepancy names its transfer.
pub fn cents(id: i64) -> i64 {
    1000 + id
}
