//! What operators and tests read and change.

mod contract;
mod dead_letters;
mod operations;
mod outgoing;
mod running;
mod vitals;
mod shapes;
mod accounts;
mod inbox;
mod instances;
mod change;
mod editing;
mod sent;
mod read;
