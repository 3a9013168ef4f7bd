//! The only source of chance: identities, jitter and nonces. In a simulation all follow a
//! seed.

use uuid::Uuid;

#[cfg(feature = "faults")]
pub use seeded::{seed, set_clock, step_clock};

/// Makes a new identity (UUID version 7: new ones sort last).
pub(crate) fn uuid() -> Uuid {
    #[cfg(feature = "faults")]
    if let Some(uuid) = seeded::uuid() {
        return uuid;
    }
    Uuid::now_v7()
}

/// Makes a nonce of random bytes, which nobody can foresee.
///
/// # Errors
/// When the system has none to give.
pub(crate) fn nonce() -> Result<[u8; 24], getrandom::Error> {
    let mut nonce = [0; 24];
    #[cfg(feature = "faults")]
    if let Some(uuid) = seeded::uuid() {
        nonce[..16].copy_from_slice(uuid.as_bytes());
        return Ok(nonce);
    }
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

/// Returns a share between 0 and 1.
pub(crate) fn share() -> f64 {
    // The low bits of a new identity are random, which is all the randomness that a share needs.
    let (_, low) = uuid().as_u64_pair();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share needs no more than 53 bits"
    )]
    let share = (low & 0xffff_ffff) as f64 / f64::from(u32::MAX);
    share
}

/// Returns the simulated time of this machine, in a simulation.
#[cfg(feature = "faults")]
pub(crate) fn simulated_now() -> Option<crate::clock::Timestamp> {
    seeded::now()
}

/// Returns by how many microseconds a test has set this process's clock forward.
#[cfg(feature = "faults")]
pub(crate) fn clock_ahead() -> i64 {
    seeded::clock_ahead()
}

#[cfg(feature = "faults")]
mod seeded {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::time::Instant;
    use uuid::{Builder, Uuid};

    use crate::clock::Timestamp;

    /// When simulations begin: 2026-01-01 UTC.
    const ORIGIN: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    thread_local! {
        static SEEDED: RefCell<Option<Seeded>> = const { RefCell::new(None) };
    }

    /// For processes of tests, whose threads are many.
    static AHEAD: AtomicI64 = AtomicI64::new(0);

    struct Seeded {
        state: u64,
        made: u16,
        began: Instant,
        /// By how much the clock was set, in microseconds.
        stepped: i64,
    }

    impl Seeded {
        /// Advances SplitMix64: every seed is a good one.
        fn next(&mut self) -> u64 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn now(&self) -> Timestamp {
            let now = ORIGIN.plus(self.began.elapsed());
            Timestamp::from_micros(now.as_micros() + self.stepped)
        }
    }

    /// Makes all chance of this thread, and what it takes for the wall clock, follow a seed: for
    /// simulations, whose clock is tokio's paused one. `None`: as ever.
    pub fn seed(seed: Option<u64>) {
        let seeded = seed.map(|state| Seeded {
            state,
            made: 0,
            began: Instant::now(),
            stepped: 0,
        });
        SEEDED.set(seeded);
    }

    /// Sets what a simulation takes for the wall clock forward, or back.
    pub fn step_clock(micros: i64) {
        SEEDED.with_borrow_mut(|seeded| {
            if let Some(seeded) = seeded {
                seeded.stepped += micros;
            }
        });
    }

    /// Sets what this whole process takes for the wall clock forward, or back, from the machine's.
    pub fn set_clock(micros_ahead: i64) {
        AHEAD.store(micros_ahead, Ordering::Relaxed);
    }

    pub(super) fn clock_ahead() -> i64 {
        AHEAD.load(Ordering::Relaxed)
    }

    pub(super) fn now() -> Option<Timestamp> {
        SEEDED.with_borrow(|seeded| seeded.as_ref().map(Seeded::now))
    }

    pub(super) fn uuid() -> Option<Uuid> {
        SEEDED.with_borrow_mut(|seeded| {
            let seeded = seeded.as_mut()?;
            let millis = u64::try_from(seeded.now().as_micros() / 1000).ok()?;
            let mut random = [0; 10];
            seeded.made = seeded.made.wrapping_add(1);
            random[..2].copy_from_slice(&seeded.made.to_be_bytes());
            random[2..].copy_from_slice(&seeded.next().to_be_bytes());
            Some(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
        })
    }
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seed_makes_the_same_identities_and_shares_and_time_again() {
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            super::seed(Some(seed));
            let first = uuid();
            tokio::time::advance(Duration::from_secs(1)).await;
            runs.push((first, uuid(), share().to_bits(), crate::clock::now()));
        }
        super::seed(None);
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0].0, runs[2].0);
        assert!(runs[0].0 < runs[0].1, "new ones sort last");
        assert_ne!(uuid(), runs[0].0);
        assert!((0.0..=1.0).contains(&share()));
    }
}
