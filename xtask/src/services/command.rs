//! `cargo xtask services up|status|env|down`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::debian;
use super::docker;
use super::kind::Kind;
use super::python;
use super::record::Records;
use super::service::Service;
use super::up::{self, Choice, Lock, State};
use crate::fail::{Result, fail};
use crate::say;
use crate::workspace::{Workspace, cache_folder};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start every service of the test set, or find it running.
    Up(Choice),
    /// Show what runs and where it would come from.
    Status,
    /// Print `export NAME=URL` lines: eval "$(cargo xtask services env)".
    Env {
        /// One service instead of all of the test set.
        service: Option<Kind>,
    },
    /// End everything that `up` started and delete its data.
    Down {
        /// One service instead of all of the test set.
        service: Option<Kind>,
    },
}

/// Runs one of the commands.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let records = Records::open(&workspace)?;
    match arguments.action {
        Action::Up(choice) => {
            let _lock = Lock::take(&records)?;
            for ready in up::up(&workspace, &records, choice, true, Kind::test_set())? {
                say::step(format!("{}: {}", ready.service.kind().name(), ready.how));
                say::detail(shown_url(&ready.url));
            }
            python::have(choice.install, &records.file("python.log"))?;
            say::step("ready: eval \"$(cargo xtask services env)\" sets the variables");
        }
        Action::Status => status(&records)?,
        Action::Env { service } => env(&records, service)?,
        Action::Down { service } => {
            let _lock = Lock::take(&records)?;
            match up::down(&records, service)? {
                0 => say::step("nothing of ours was running"),
                count => say::step(format!("services ended: {count}")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(records: &Records) -> Result<()> {
    for service in Kind::test_set() {
        let (word, rest) = match up::state(service, records) {
            State::Environment { url, answers: true } => (
                "up",
                format!("{} ({})", shown_url(&url), service.variable()),
            ),
            State::Environment {
                url,
                answers: false,
            } => (
                "no answer",
                format!("{} ({})", shown_url(&url), service.variable()),
            ),
            State::Ours(record) => (
                "up",
                format!("{}  {}", service.url(record.port), record.describe()),
            ),
            State::Broken(record) => ("no answer", record.describe()),
            State::Down => ("down", "type `cargo xtask services up`".to_owned()),
        };
        say::result(format_args!(
            "{:<10} {word:<10} {rest}",
            service.kind().name()
        ));
    }
    match docker::engine() {
        Some(version) => say::result(format_args!(
            "{:<10} {:<10} Docker {version}",
            "docker", "answers"
        )),
        None => say::result(format_args!(
            "{:<10} {:<10} no Docker engine answers",
            "docker", "not run:"
        )),
    }
    let cache = cache_folder()?.join("debian-13");
    let (word, rest) = match (debian::is_cached(), debian::obstacle()) {
        (_, Some(why)) => ("not here:", why.to_owned()),
        (true, None) => ("made", cache.display().to_string()),
        (false, None) => (
            "not made",
            format!("`services up` makes {}", cache.display()),
        ),
    };
    say::result(format_args!("{:<10} {word:<10} {rest}", "debian-13"));
    Ok(())
}

fn env(records: &Records, wanted: Option<Kind>) -> Result<()> {
    if let (None, Some((name, python))) = (wanted, python::variable()) {
        say::result(format_args!("export {name}={}", quoted(&python)));
    }
    let services = match wanted {
        None => Kind::test_set(),
        Some(kind) => vec![kind.service()],
    };
    for service in services {
        say::result(format_args!(
            "export {}={}",
            service.variable(),
            quoted(&running_url(service, records)?)
        ));
        for (name, value) in service.more_variables() {
            say::result(format_args!("export {name}={}", quoted(&value)));
        }
    }
    Ok(())
}

fn running_url(service: &dyn Service, records: &Records) -> Result<String> {
    match up::state(service, records) {
        State::Environment { url, .. } => Ok(url),
        State::Ours(record) => Ok(service.url(record.port)),
        State::Broken(_) | State::Down => {
            let name = service.kind().name();
            fail(format!(
                "{name} does not run; type `cargo xtask services up` first"
            ))
        }
    }
}

/// A URL without its password.
fn shown_url(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:***@{place}"))
    });
    parts.unwrap_or_else(|| url.to_owned())
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/@.-_".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let cases = [
            ("postgres://me:secret@db:1/x", "postgres://me:***@db:1/x"),
            ("postgres://me:se@cret@db/x", "postgres://me:***@db/x"),
            ("postgres://me@db/x", "postgres://me@db/x"),
            ("postgres://db/x", "postgres://db/x"),
        ];
        for (url, expected) in cases {
            assert_eq!(shown_url(url), expected);
        }
    }

    #[test]
    fn only_unusual_words_are_quoted_for_the_shell() {
        assert_eq!(
            quoted("postgres://p@127.0.0.1:5/x"),
            "postgres://p@127.0.0.1:5/x"
        );
        assert_eq!(quoted("a?b=c&d=$e'"), r"'a?b=c&d=$e'\'''");
    }
}
