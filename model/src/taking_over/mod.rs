//! A message from a broker to its disposition: the inbox, grouped commits with losers taken back,
//! commits in doubt, and the self-addressed row of a message that failed.

mod model;
mod state;
mod steps;

pub(crate) use model::TakingOver;
