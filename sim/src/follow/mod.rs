//! A run, followed through the models of taking over and publishing: each message at each endpoint,
//! and each row for a broker, step by step. A step that the model does not have is a stray.
//!
//! What is left out: timers' rows, which their instance may remove; what a client sends, which may
//! be two rows of one identity; order per key, whose model is one of PostgreSQL's statements. The
//! units of one group are followed each for itself.

mod followed;
mod known;
mod walk;

pub use followed::Followed;
pub(crate) use followed::follow;
