//! What asks for care before a message is tried: starts that ended without a word, and a time that is
//! over.

use crate::intake::Arrival;
use crate::unit_of_work::RowKey;

/// Starts without a recorded end after which a message runs alone.
const LOST_STARTS_SUSPECT: i32 = 2;
/// Starts alone without a recorded end after which a message is a dead letter.
const SOLO_STARTS_MAX: i32 = 3;
/// Redeliveries by the broker after which a message is taken over before it is run.
const REDELIVERIES_SUSPECT: u32 = 2;

/// What has to be thought of before a message is tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// Nothing.
    None,
    /// Its time is over.
    Expired,
    /// Its starts ended without a word too often.
    KilledHost(String),
    /// The broker brought it so often that its tries have to be counted.
    TakeOver,
    /// It runs alone; its row until that is told.
    Alone(Option<RowKey>),
}

impl Care {
    /// Says it of a message as it came.
    pub(crate) fn of(arrival: &Arrival) -> Self {
        match arrival {
            Arrival::Row(row) if row.is_expired => Self::Expired,
            Arrival::Row(row) if row.starts - 1 - row.failures < LOST_STARTS_SUSPECT => Self::None,
            Arrival::Row(row) if row.solo_starts < SOLO_STARTS_MAX => Self::Alone(Some(row.row)),
            Arrival::Row(row) => Self::KilledHost(format!(
                "{} starts ended without a word, the last ones alone",
                row.starts - 1
            )),
            Arrival::Delivery(delivery) if delivery.redeliveries < REDELIVERIES_SUSPECT => {
                Self::None
            }
            Arrival::Delivery(_) => Self::TakeOver,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::endpoint::EndpointName;
    use crate::scripted::envelope;
    use crate::store::ClaimedRow;
    use crate::transport::{Delivery, Settler, Verdict};

    const KEY: RowKey = RowKey { id: 5, epoch: 9 };

    /// Says it of a row of which so many starts and failures are known.
    fn of_row(starts: i32, failures: i32, solo_starts: i32) -> Care {
        Care::of(&Arrival::Row(Box::new(row(starts, failures, solo_starts))))
    }

    fn row(starts: i32, failures: i32, solo_starts: i32) -> ClaimedRow {
        ClaimedRow {
            row: KEY,
            destination: "@work".to_owned(),
            envelope: envelope("test.do"),
            key: None,
            starts,
            failures,
            solo_starts,
            attempts: Vec::new(),
            timer: None,
            is_expired: false,
        }
    }

    /// A broker that nobody hears.
    struct Deaf;

    impl Settler for Deaf {
        fn settle(self: Box<Self>, _: Verdict) -> BoxFuture<'static, ()> {
            Box::pin(ready(()))
        }
    }

    fn of_delivery(redeliveries: u32) -> Care {
        let work = EndpointName::new("work").expect("a usable name");
        let delivery = Delivery::new(work, envelope("test.do"), redeliveries, Box::new(Deaf));
        Care::of(&Arrival::Delivery(delivery))
    }

    #[test]
    fn a_row_runs_alone_once_two_starts_of_it_ended_without_a_word() {
        // The start under way has no end yet, and one that failed has said so.
        for (starts, failures) in [(1, 0), (2, 0), (3, 1), (9, 8), (10, 8)] {
            assert_eq!(
                of_row(starts, failures, 0),
                Care::None,
                "{starts} {failures}"
            );
        }
        for (starts, failures) in [(3, 0), (4, 1), (11, 8), (20, 0)] {
            let care = of_row(starts, failures, 0);
            assert_eq!(care, Care::Alone(Some(KEY)), "{starts} {failures}");
        }
    }

    #[test]
    fn a_row_is_given_up_once_three_starts_alone_ended_without_a_word() {
        assert_eq!(of_row(5, 0, 2), Care::Alone(Some(KEY)));
        let Care::KilledHost(error) = of_row(6, 0, 3) else {
            panic!("it is tried for ever");
        };
        assert!(error.starts_with("5 starts ended"), "{error}");
        // What failed with a word since then is tried like any other.
        assert_eq!(of_row(6, 4, 3), Care::None);
    }

    #[test]
    fn a_row_whose_time_is_over_is_not_tried_at_all() {
        for starts in [1, 9] {
            let mut row = row(starts, 0, 3);
            row.is_expired = true;
            assert_eq!(Care::of(&Arrival::Row(Box::new(row))), Care::Expired);
        }
    }

    #[test]
    fn what_a_broker_brings_for_the_third_time_is_counted_by_the_database() {
        let cares = [0, 1, 2, 9].map(of_delivery);
        let (none, taken_over) = (Care::None, Care::TakeOver);
        assert_eq!(cares, [none, Care::None, taken_over, Care::TakeOver]);
    }
}
