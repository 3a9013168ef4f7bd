//! The services that tests use: found or started, one file per service.
//!
//! For each service the first of these that can be had is used:
//! 1. the address in the environment (`SAGABUS_POSTGRES_URL`, `SAGABUS_KAFKA_BROKERS`): used as it is, never stopped;
//! 2. the server that an earlier `services up` of this work tree started;
//! 3. a Docker engine, when it answers;
//! 4. local packages, as the file of the service describes.
//!
//! Servers listen on 127.0.0.1 only, on free ports of our own, with a new data folder each time.
//! Where Python's clients of the brokers are, and libfaketime, tests are told as well.
//!
//! What was started is written to `~/.cache/sagabus/services/<work tree>/<service>.json`.

// What a service is.
mod kind;
mod service;
// Where one comes from.
mod apt;
mod debian;
mod docker;
// What runs.
mod owned;
mod record;
// The services of the test set.
mod postgres;
mod rabbitmq;
mod kafka;
// Who talks to it from another language.
mod python;
// What sets a clock wrong.
mod faketime;
// What a person or another command does with them.
mod command;
mod hold;
mod up;

pub(crate) use command::{Arguments, run};
pub(crate) use hold::{Held, hold, hold_only, set_variables};
pub(crate) use kind::Kind;
pub(crate) use service::Service;
pub(crate) use up::Choice;
