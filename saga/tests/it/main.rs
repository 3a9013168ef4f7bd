//! Sagas and state machines at work, on every store.
#![allow(
    clippy::unwrap_used,
    reason = "a step that fails is a test that fails, also in what tests share"
)]

#[macro_use]
mod stores;
#[macro_use]
mod messages;
mod answering;
mod bad_input;
mod by_hand;
mod configured;
mod declared;
mod faulted;
mod itinerary;
mod locks;
mod machine;
mod migrated;
mod named;
mod observed;
mod order;
mod own_sql;
mod own_table;
mod parcel;
mod parcel_machine;
mod racing;
mod reference;
mod removed_state;
mod shipping;
mod shipping_saga;
mod tested;
mod timer_races;
mod ticket_labels;
mod versions;
