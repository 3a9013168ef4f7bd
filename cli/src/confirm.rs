//! The question before a change.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use bytes::Bytes;
use sagabus_ops::Operator;

use crate::arguments::OperatorArguments;
use crate::failure::Failure;
use crate::text::safe;

/// Whether a change goes ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was confirmed.
    Go,
    /// Only a preview was wanted.
    Preview,
}

/// Asks whether to make a change whose preview was shown.
///
/// # Errors
/// [`Failure::NotConfirmed`] where the answer is no, or nobody is there to be asked.
pub(crate) fn confirm(operator: &OperatorArguments, what: &str) -> Result<Answer, Failure> {
    if operator.dry_run {
        return Ok(Answer::Preview);
    }
    if operator.yes {
        return Ok(Answer::Go);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::NotConfirmed(format!(
            "{what}: nobody is here to confirm it; add `--yes` to do it, or `--dry-run` to look [SB0305]"
        )));
    }
    write!(io::stderr(), "{}? [y/N] ", safe(what))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(Answer::Go),
        _ => Err(Failure::NotConfirmed(
            "nothing was changed [SB0305]".to_owned(),
        )),
    }
}

/// Says who acts: as told, else as the system knows the user.
pub(crate) fn operator(arguments: &OperatorArguments) -> Operator {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let who = arguments.who.clone().or_else(|| name("USER"));
    Operator {
        who: who.unwrap_or_else(|| "unknown".to_owned()),
        why: arguments.why.clone(),
    }
}

/// Reads what somebody wrote: a file, or standard input where it is `-`.
///
/// # Errors
/// [`Failure::Usage`] where it cannot be read.
pub(crate) fn read_file(name: &str) -> Result<Bytes, Failure> {
    let read = match name {
        "-" => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            read.map(|_| bytes)
        }
        path => std::fs::read(path),
    };
    let unreadable = |error| Failure::Usage(format!("`{name}` cannot be read: {error} [SB0308]"));
    read.map(Bytes::from).map_err(unreadable)
}
