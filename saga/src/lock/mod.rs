//! A lock on a business key: a saga reserves it and has it until the saga ends, over many messages
//! and hosts.
//!
//! A lock is an instance of its own, which a built-in saga keeps: who holds it, and who waits.
//! Reserving, granting and giving back are messages between the two, each in the commit that
//! decides it.

mod messages;
mod keeper;
mod reserving;

pub(crate) use keeper::keeper;
pub use keeper::{KIND, Lock};
pub use messages::{BreakLock, NotReserved, Refusal, ReservationLost, Reserve, Reserved};
pub(crate) use reserving::{Held, answered, settle, too_early};
