//! The payment gateway: somebody else's service, with a memory of its own.
//!
//! It keeps an append-only file, synced before it answers, with one line per call. Like a real one
//! it knows calls by their idempotency key: a repeated key returns the first receipt and moves no
//! money. It declines some cards, takes its time over others, stumbles now and then, and is down
//! when somebody broke it.

mod line;
mod till;
mod wire;

pub(crate) use line::{Kind, file_in, read};
pub(crate) use till::{Card, Till};
pub(crate) use wire::{send, serve};

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What can be asked of the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Charge a card.
    Charge {
        key: String,
        order: i64,
        cents: i64,
        card: String,
    },
    /// Give the money of a receipt back.
    Refund {
        key: String,
        order: i64,
        cents: i64,
        receipt: String,
    },
    /// Break it, or mend it.
    Break(bool),
    /// Ask only whether it is broken.
    Look,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The money moved, or had been moved by an earlier call with this key.
    Done { receipt: String },
    /// No money moves, now or later.
    Declined { reason: String },
    /// Not decided: ask again with the same key.
    Pending { wait: Duration },
    /// It cannot be reached. Nothing was written.
    Down,
    /// It failed before it did anything: the next call may go well.
    Stumbled,
    /// It is up: the answer to `Break(false)` and `Look`.
    Up,
}

/// How to reach the gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Gateway {
    /// In this process; it dies and comes back with it, only its file stays.
    Here(Till),
    /// A process of its own on this machine.
    There(SocketAddr),
}

impl Gateway {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When the gateway stumbled or its answer was lost: whether money moved is then unknown, and
    /// asking again with the same key is the way to learn it.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer> {
        let answer = match self {
            Self::Here(till) => till.ask(ask).await?,
            Self::There(address) => send(*address, &ask).await?,
        };
        match answer {
            Answer::Stumbled => bail!("gateway stumbled (500)"),
            answer => Ok(answer),
        }
    }
}
