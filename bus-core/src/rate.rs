//! How often an endpoint tries messages: evenly spread, never faster.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Gives out moments that are a fixed time apart.
#[derive(Debug)]
pub(crate) struct Rate {
    apart: Duration,
    /// The first moment that nobody has.
    next: Mutex<Instant>,
}

impl Rate {
    /// Allows so many tries in this time.
    pub(crate) fn new(tries: u32, per: Duration) -> Self {
        Self {
            apart: per / tries.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Takes this moment, if it is free.
    pub(crate) fn take_now(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_free = *next <= now;
        if is_free {
            *next = now + self.apart;
        }
        is_free
    }

    /// Takes the first moment that is free, now or later. One that is not used is lost.
    pub(crate) fn take_next(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = (*next).max(Instant::now());
        *next = taken + self.apart;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_are_apart_whoever_takes_them_and_none_are_saved_up() {
        let rate = Rate::new(10, Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        let began = Instant::now();
        assert!(rate.take_now() && !rate.take_now());
        let taken: Vec<_> = (0..3)
            .map(|_| (rate.take_next() - began).as_millis())
            .collect();
        assert_eq!(taken, [100, 200, 300]);
        tokio::time::advance(Duration::from_millis(399)).await;
        assert!(!rate.take_now());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(rate.take_now());
    }
}
