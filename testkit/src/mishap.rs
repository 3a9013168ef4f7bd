//! What may happen to a publication on its way to a broker, by whichever protocol.

use std::time::Duration;

/// What happens to one publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The broker never sees it, and the connection is cut.
    Lost,
    /// The broker answers, nobody hears it, and the connection is cut.
    Unconfirmed,
    /// The connection is cut right behind its confirm.
    Confirmed,
    /// It, and what comes behind it, is held for so long.
    Held(Duration),
}

/// A test's say in what happens to publications.
pub trait Mishaps: Send + Sync + 'static {
    /// Decides about one, before the broker has seen any of it. `is_within`: the broker has others
    /// of this connection that are not confirmed.
    fn decide(&self, is_within: bool) -> Option<Mishap>;

    /// Hears that it happened.
    fn happened(&self, mishap: Mishap, is_within: bool);
}
