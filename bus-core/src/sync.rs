//! What tasks share, wait for and are woken by: std's and tokio's, or, where the package in
//! `shuttle/` builds this crate, what lets them meet in every order that chance finds.
//!
//! Channels and semaphores are tokio's in both. Under shuttle a task may be interrupted where it
//! waits, at every lock, atomic and wake-up of the engine, and at every named crash point.

#[cfg(not(sagabus_shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};
#[cfg(not(sagabus_shuttle))]
pub(crate) use tokio::{sync::Notify, time};

#[cfg(sagabus_shuttle)]
mod shuttled;
#[cfg(sagabus_shuttle)]
pub(crate) use shuttled::{Mutex, MutexGuard, Notify, RwLock, atomic, spawn};
#[cfg(sagabus_shuttle)]
pub use shuttled::{point, time};

/// Lets another task go first, where that is tried.
#[cfg(not(sagabus_shuttle))]
#[inline(always)]
pub(crate) fn point() {}
