//! The machine of the kill matrix: transfers, some of which bounce, with a timer that never fires.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus_testkit::transfers::{
    Bounced, Credit, Credited, Debit, Debited, Leg, Overdue, Refund, Refunded, Settled,
    StartTransfer, Transfer,
};

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

/// Every second one of these fails for good at its first try.
pub(crate) fn is_hopeless(id: i64) -> bool {
    id % 26 == 21
}
