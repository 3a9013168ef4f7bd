//! Services for as long as a command runs.
//!
//! Several commands of one work tree may share a server: each holds a shared lock, and the last
//! one to end stops what no `services up` asked to keep.

use std::fs::File;
use std::process::Command;

use super::faketime;
use super::kind::Kind;
use super::python;
use super::record::Records;
use super::service::Service;
use super::up::{self, Choice, Lock, Ready};
use crate::fail::{Doing, Result};
use crate::say;
use crate::workspace::Workspace;

/// Services in use; dropping it stops what was started for it.
pub(crate) struct Held {
    ready: Vec<Ready>,
    records: Records,
    in_use: File,
}

/// Brings the test set up and holds it.
pub(crate) fn hold(workspace: &Workspace, choice: Choice) -> Result<Held> {
    let held = hold_only(workspace, choice, Kind::test_set())?;
    python::have(choice.install, &held.records.file("python.log"))?;
    faketime::have(choice.install, &held.records.file("faketime.log"));
    Ok(held)
}

/// Brings some of the test set up and holds it.
pub(crate) fn hold_only(
    workspace: &Workspace,
    choice: Choice,
    services: Vec<&'static dyn Service>,
) -> Result<Held> {
    let records = Records::open(workspace)?;
    let lock = Lock::take(&records)?;
    let path = records.file("in-use");
    let in_use = File::create(&path).doing(format!("write {}", path.display()))?;
    in_use
        .lock_shared()
        .doing(format!("lock {}", path.display()))?;
    // From here on, dropping stops what was started, also when a later service fails.
    let mut held = Held {
        ready: Vec::new(),
        records,
        in_use,
    };
    let started = up::up(workspace, &held.records, choice, false, services);
    drop(lock);
    held.ready = started?;
    for ready in &held.ready {
        say::step(format!("{}: {}", ready.service.kind().name(), ready.how));
    }
    Ok(held)
}

/// Tells a command where the services are; none of them is known to it when none is held.
pub(crate) fn set_variables(command: &mut Command, held: Option<&Held>) {
    for service in Kind::test_set() {
        command.env_remove(service.variable());
    }
    python::forget(command);
    faketime::forget(command);
    if held.is_some() {
        command.envs(python::variable());
        command.envs(faketime::variable());
        // A test that misses its service has failed: nobody reads what a passed test printed.
        command.env("SAGABUS_SERVICES_REQUIRED", "1");
    }
    for ready in held.iter().flat_map(|held| &held.ready) {
        command.env(ready.service.variable(), &ready.url);
        command.envs(ready.service.more_variables());
    }
}

impl Held {
    fn release(&self) -> Result<()> {
        let _lock = Lock::take(&self.records)?;
        self.in_use.unlock().doing("unlock the services")?;
        if self.in_use.try_lock().is_err() {
            return Ok(());
        }
        for kind in Kind::test_set().iter().map(|service| service.kind()) {
            if let Some(record) = self.records.load(kind)
                && !record.kept
            {
                up::end(kind, &self.records, &record)?;
                say::step(format!("{}: stopped", kind.name()));
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            say::step(format!("services are not stopped: {error}"));
        }
    }
}
