//! State machines at work on the in-memory store.

mod declared;
mod machine;
mod order;
