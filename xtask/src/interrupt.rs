//! Ctrl-C and SIGTERM: end the children, let the guards clean up, exit.
//!
//! Children that run for long are leaders of process groups of their own, so that a signal ends
//! their whole tree and never a service that must outlive them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::fail::{Doing, Error, Result};

static ASKED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Installs the handler. The first signal asks the children to end, a second one ends them.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        let again = ASKED.swap(true, Ordering::SeqCst);
        signal_groups(if again { Signal::KILL } else { Signal::TERM });
    })
    .doing("install the signal handler")
}

/// Whether a signal came.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Ends early when a signal came.
pub(crate) fn check() -> Result<()> {
    if asked() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// A process group that ends with us, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Group(Pid);

impl Group {
    /// Watches the group led by `leader`; signals it at once if we were interrupted meanwhile.
    pub(crate) fn watch(leader: Pid) -> Self {
        lock().push(leader);
        if asked() {
            signal_group(leader, Signal::TERM);
        }
        Self(leader)
    }

    /// Ends what is left of the group.
    pub(crate) fn kill(&self) {
        signal_group(self.0, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        lock().retain(|group| *group != self.0);
    }
}

fn signal_groups(signal: Signal) {
    for group in lock().iter() {
        signal_group(*group, signal);
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // An empty group is the usual answer here, and the waiting parent notices anything else.
    let _ = kill_process_group(group, signal);
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    GROUPS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
