//! What connects one host with everything outside of it. A host that is cut off for good is gone:
//! whatever it still computes, nobody learns of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagabus_core::Delivery;
use tokio::time::{Instant, sleep_until};

use crate::fault::Fault;
use crate::seen::Seen;
use crate::world::World;

/// One process's way to store and broker.
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    pub(crate) name: String,
    state: Mutex<State>,
    /// What the broker has handed over and waits to be answered for.
    in_hand: Mutex<InHand>,
}

#[derive(Default)]
struct InHand {
    last: u64,
    deliveries: BTreeMap<u64, Delivery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// It stands still until then, and goes on as if nothing had been.
    Frozen(Instant),
    Dead,
}

impl Link {
    pub(crate) fn new(world: &Arc<World>, name: String) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            name,
            state: Mutex::new(State::Up),
            in_hand: Mutex::default(),
        })
    }

    /// Waits until the process runs; for ever where it is dead.
    pub(crate) async fn pass(&self) {
        loop {
            match self.state() {
                State::Up => return,
                State::Frozen(until) => {
                    sleep_until(until).await;
                    self.thaw(until);
                }
                State::Dead => std::future::pending::<()>().await,
            }
        }
    }

    /// Ends the process.
    pub(crate) fn kill(&self, how: Fault) {
        if self.is_dead() {
            return;
        }
        self.world.count(how);
        self.world.note(format_args!("{} is killed", self.name));
        self.end();
    }

    /// Ends what is left of the process.
    pub(crate) fn end(&self) {
        let process = self.name.clone();
        self.world.see(Seen::Gone { process });
        self.set(State::Dead);
        self.cut();
    }

    /// Loses the connection to the broker: what is in hand comes again, to whomever.
    pub(crate) fn cut(&self) -> usize {
        let cut = std::mem::take(&mut self.in_hand().deliveries);
        self.world
            .note(format_args!("{} loses {} deliveries", self.name, cut.len()));
        cut.len()
    }

    /// Takes a delivery into this process's hands; returns its number there.
    pub(crate) fn hold(&self, delivery: Delivery) -> u64 {
        let mut in_hand = self.in_hand();
        in_hand.last += 1;
        let number = in_hand.last;
        in_hand.deliveries.insert(number, delivery);
        number
    }

    /// Takes a delivery out of this process's hands; none where the connection was lost since.
    pub(crate) fn take(&self, number: u64) -> Option<Delivery> {
        self.in_hand().deliveries.remove(&number)
    }

    fn in_hand(&self) -> MutexGuard<'_, InHand> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the process for a while.
    pub(crate) fn freeze(&self, until: Instant) {
        if self.state() == State::Up {
            self.set(State::Frozen(until));
            self.world.count(Fault::Frozen);
            self.world.note(format_args!("{} is frozen", self.name));
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state() == State::Dead
    }

    fn thaw(&self, until: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Frozen(until) {
            *state = State::Up;
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
