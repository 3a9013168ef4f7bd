//! The database goes away, does not answer, or answers when nobody listens any more: what was
//! promised is kept, and nothing happens twice.

pub(crate) mod site;
mod doubt;
mod frozen;
mod terminated;
mod absent;
mod silent;
mod bad_input;
mod idle;
mod downstream;
mod sleeper;
