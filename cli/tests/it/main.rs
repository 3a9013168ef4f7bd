//! The program itself, against real databases that a real host has filled.
#![allow(
    clippy::unwrap_used,
    reason = "a step that fails is a test that fails, also in what tests share"
)]

mod scene;
mod doctor;
mod endpoints;
mod timers;
mod json;
mod explain;
mod schedules;
mod parcels;
mod reading;
mod searched;
mod shown;
mod changing;
mod operations;
mod noting_broker;
mod killed;
mod schema;
#[cfg(unix)]
mod progress;
#[cfg(unix)]
mod terminal;
mod editing;
mod sealed;
mod canary;
mod roles;
mod accounts;
mod demo;
mod inbox;
mod config;
mod trace;
mod rows;
mod migrating;
mod transports;
mod bad_input;
mod help;
mod locks;
mod machines;
mod mistakes;
mod sagas;
mod rehearsing;
mod till;
mod postgres;
