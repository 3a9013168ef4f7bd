//! Transfers between accounts: what is sent, and the machine that moves money or gives it back.

use std::time::Duration;

use sagabus_core::{Command, Event, Kind, Message};
use sagabus_saga::{
    Correlate, Handles, MachineEndpoint, NamedSaga, Saga, SagaCtx, SagaState, Starts, StateMachine,
};
use serde::{Deserialize, Serialize};

/// How many accounts are credited: few, so that many messages want one.
const ACCOUNTS: i64 = 2;

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

/// What a transfer says of itself, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) number: i64,
}

impl Message for Note {
    const TYPE: &'static str = "transfer.note";
    const KIND: Kind = Kind::Command;

    fn message_key(&self) -> Option<String> {
        Some(self.id.to_string())
    }
}
impl Command for Note {}

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
pub(crate) const TRANSFER: &str = "transfer";

/// The machine, put on an endpoint.
pub(crate) fn transfers(endpoint: sagabus_core::EndpointBuilder) -> sagabus_core::EndpointBuilder {
    endpoint.machine(machine())
}

fn machine() -> StateMachine<Transfer> {
    StateMachine::named(TRANSFER)
        .initially(
            Transfer::when::<StartTransfer>()
                .init(|m| Transfer { id: m.id })
                .send(|t, _| Debit { id: t.id })
                .send(|t, _| note(t, 1))
                .transition_to(Leg::Debiting),
        )
        .during(
            Leg::Debiting,
            Transfer::when::<Debited>()
                .send(|t, _| Credit { id: t.id })
                .send(|t, _| note(t, 2))
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
                .send(|t, _| note(t, 3))
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
                .send(|t, _| note(t, 3))
                .finalize(),
        )
}

fn note(transfer: &Transfer, number: i64) -> Note {
    let id = transfer.id;
    Note { id, number }
}

/// An account that everybody wants at once. It counts in its own data what it was told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) settled: Vec<i64>,
}

impl Saga for Account {
    type Key = i64;
    type State = ();
}

impl NamedSaga for Account {
    const NAME: &'static str = "account";
}

impl Correlate<Account> for Settled {
    fn key(&self) -> i64 {
        self.id % ACCOUNTS
    }
}

impl Starts<Settled> for Account {
    fn start(_: &Settled) -> Self {
        Self::default()
    }
}

impl Handles<Settled> for Account {
    async fn handle(&mut self, message: Settled, _: &mut SagaCtx) -> sagabus_core::Result {
        self.settled.push(message.id);
        Ok(())
    }
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

/// Every fifth credit fails twice after its first write, so that it is written down for later.
pub(crate) fn stumbles(id: i64) -> bool {
    id % 5 == 2
}

/// Every sixth settlement can never be noted: it becomes a dead letter.
pub(crate) fn cannot_be_noted(id: i64) -> bool {
    id % 6 == 1
}

/// How many cents a transfer moves: all distinct, so that a discrepancy names its transfer.
pub(crate) fn cents(id: i64) -> i64 {
    1000 + id
}

/// What a transfer must leave in the ledger, without its notes.
pub(crate) fn expected(id: i64) -> Vec<(&'static str, i64)> {
    let back = bounces(id) || vanishes(id);
    let mut legs = vec![("debit", -cents(id))];
    legs.push((if back { "refund" } else { "credit" }, cents(id)));
    if !cannot_be_noted(id) {
        legs.push(("settled", 0));
    }
    legs.sort_unstable();
    legs
}
