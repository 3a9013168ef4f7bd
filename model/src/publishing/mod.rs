//! An outgoing row from its unit to the endpoint that takes it: born leased and gone on from
//! memory, or claimed by a relay; confirmed, returned or in doubt; recognised where it arrives.

mod follow;
mod model;
mod state;
mod steps;

pub use follow::{OfRow, Outgoing, Published, Written};
pub(crate) use model::Publishing;
