//! The fault broker keeps the transport contract, and breaks it as it is told.

mod conformance;
mod faults;
