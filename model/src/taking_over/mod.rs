//! A message from a broker to its disposition: the inbox, grouped commits with losers taken back,
//! commits in doubt, and the self-addressed row of a message that failed.

mod follow;
mod model;
mod state;
mod steps;

pub use follow::{Call, Decided, Message, OfMessage, Wrote};
pub(crate) use model::TakingOver;
