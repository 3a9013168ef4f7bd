//! Which message ran in which life of a host: what was handled again because a host was told to go.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use sagabus::Ctx;
use sagabus::pipeline::{Middleware, Next};
use sagabus::prelude::HandlerError;

use crate::clock::micros;

/// Says of each try of a handler when it began, and whether it failed.
pub(crate) struct Tells;

impl Middleware for Tells {
    fn name(&self) -> &'static str {
        "tells"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let id = cx.message_id();
            println!("ran {} {id}", micros());
            let result = next.run(cx).await;
            if result.is_err() {
                println!("failed {id}");
            }
            result
        })
    }
}

/// What one life of a host said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// When it was told to go, and how much it had in hand.
    told: Option<(i64, u64)>,
    /// When each message was tried last.
    ran: BTreeMap<String, i64>,
    failed: BTreeSet<String>,
}

impl Life {
    pub(crate) fn of(text: &str) -> Self {
        let mut life = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["ran", at, id] => {
                    life.ran.insert(id.to_owned(), at.parse().unwrap_or(0));
                }
                ["failed", id] => {
                    life.failed.insert(id.to_owned());
                }
                ["told", at, in_hand] => {
                    life.told = at.parse().ok().zip(in_hand.parse().ok());
                }
                _ => {}
            }
        }
        life
    }
}

/// What came of hosts that were told to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stops {
    /// Messages that they had in hand when they were told.
    pub(crate) in_hand: u64,
    /// Messages that ran in one of them, did not fail, and ran elsewhere after it was told.
    pub(crate) again: u64,
    /// Those of which more ran again than they had in hand.
    pub(crate) wrong: Vec<String>,
}

impl Stops {
    pub(crate) fn of(lives: &[Life]) -> Self {
        let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
        for (id, at) in lives.iter().flat_map(|life| &life.ran) {
            let one = latest.entry(id).or_default();
            *one = (*one).max(*at);
        }
        let mut stops = Self::default();
        for (number, life) in lives.iter().enumerate() {
            let Some((told, in_hand)) = life.told else {
                continue;
            };
            let is_again = |(id, at): &(&String, &i64)| {
                let last = latest.get(id.as_str()).copied().unwrap_or_default();
                !life.failed.contains(*id) && last > told && last > **at
            };
            let again = life.ran.iter().filter(is_again).count() as u64;
            stops.in_hand += in_hand;
            stops.again += again;
            if again > in_hand {
                let facts = format!("life {number}: {again}, {in_hand} in hand");
                stops.wrong.push(facts);
            }
        }
        stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_elsewhere_after_a_stop_is_counted_and_a_failure_is_not() {
        let first = Life::of("up\nran 1 a\nran 2 b\nfailed b\nran 3 c\nran 4 d\ntold 5 1\n");
        let second = Life::of("ran 2 d\nran 6 a\nran 7 b\nran 8 e\n");
        let stops = Stops::of(&[first.clone(), second.clone()]);
        assert_eq!((stops.in_hand, stops.again), (1, 1), "only `a`");
        assert!(stops.wrong.is_empty());
        let third = Life::of("ran 9 c\n");
        let stops = Stops::of(&[first, second, third]);
        assert_eq!((stops.in_hand, stops.again, stops.wrong.len()), (1, 2, 1));
    }
}
