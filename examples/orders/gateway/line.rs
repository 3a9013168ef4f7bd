//! One line of the gateway's file.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Money was taken.
    Charge,
    /// Money was given back.
    Refund,
    /// The card was refused.
    Decline,
    /// The bank has not decided yet; the next call with this key does.
    Pending,
    /// A key that had been decided before: its first receipt was returned, no money moved.
    Repeat,
}

/// One call, as the gateway remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) order: i64,
    pub(crate) cents: i64,
    pub(crate) key: String,
    /// The receipt, or why there is none.
    pub(crate) note: String,
}

/// Returns where the gateway of this folder keeps its file.
pub(crate) fn file_in(folder: &Path) -> PathBuf {
    folder.join("gateway.jsonl")
}

/// Reads every whole line. A last line without an end was never answered: it does not count, and
/// the gateway cuts it off when it starts. Also returns how many bytes the whole lines have.
pub(crate) fn read(path: &Path) -> Result<(Vec<Line>, u64)> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut reader = BufReader::new(file);
    let (mut lines, mut bytes, mut text) = (Vec::new(), 0, String::new());
    loop {
        text.clear();
        reader.read_line(&mut text)?;
        if !text.ends_with('\n') {
            return Ok((lines, bytes));
        }
        let number = lines.len() + 1;
        let line = serde_json::from_str(&text)
            .with_context(|| format!("line {number} of {} is damaged", path.display()))?;
        lines.push(line);
        bytes += text.len() as u64;
    }
}
