//! The simulation keeps the contracts without faults, is the same again for the same seed, and finds
//! what it is there to find.

mod conformance;
mod seeds;
