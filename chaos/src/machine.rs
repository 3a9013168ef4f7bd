//! The machine that moves the money of a transfer or gives it back, and what it must leave.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus_testkit::transfers::{
    Bounced, Credit, Credited, Debit, Debited, Leg, Overdue, Refund, Refunded, Settled,
    StartTransfer, Transfer, bounces, cannot_be_noted, cents, vanishes,
};

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
