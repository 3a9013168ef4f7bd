//! What operators type and write down.

use std::ffi::OsString;

use crate::parts::text;

/// Words of a command line, one a line: which rows, dead letters and instances are meant.
pub(crate) fn filters(bytes: &[u8]) {
    let all = text(bytes);
    let words = all.split('\n').map(OsString::from);
    sagabus_cli::fuzzing::words(words.collect());
}

/// Lines: a cron expression, a zone, from when, and until when it is made up for.
pub(crate) fn cron(bytes: &[u8]) {
    let all = text(bytes);
    let mut lines = all.split('\n');
    let expression = lines.next().unwrap_or_default();
    let zone = lines.next().unwrap_or("UTC");
    let mut number = || lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let (from, until) = (number(), number());
    sagabus_core::fuzzing::cron(expression, zone, from, until);
}

/// A profile that is asked for, and the text of a `sagabus.toml`.
pub(crate) fn configuration(bytes: &[u8]) {
    let all = text(bytes);
    let (profile, file) = all.split_once('\n').unwrap_or(("", &all));
    sagabus_cli::fuzzing::configuration(Some(profile).filter(|one| !one.is_empty()), file);
}
