//! Brings services up and down; the order in which their sources are tried is here.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use rustix::process::Signal;

use super::docker;
use super::kind::Kind;
use super::owned::Owned;
use super::record::{Origin, Record, Records};
use super::service::{Request, Service, Source};
use crate::fail::{Doing, Result, fail};
use crate::say;
use crate::workspace::Workspace;

/// For what has nothing to put in order.
const KILL: &[(Signal, Duration)] = &[(Signal::KILL, Duration::from_secs(5))];

/// Where a service may come from.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Choice {
    /// Where a server comes from when the environment names none.
    #[arg(long, value_enum, default_value_t = Source::Auto)]
    pub(crate) source: Source,
    /// Install missing packages on this machine (done without asking when root).
    #[arg(long)]
    pub(crate) install: bool,
}

/// A service that can be used.
pub(crate) struct Ready {
    pub(crate) service: &'static dyn Service,
    pub(crate) url: String,
    pub(crate) how: String,
}

/// The state of a service, for `status`.
pub(crate) enum State {
    /// Named by the environment; `true` if it answers.
    Environment { url: String, answers: bool },
    /// Ours, and it answers.
    Ours(Record),
    /// Ours, and it does not answer.
    Broken(Record),
    /// Not started.
    Down,
}

/// One command at a time changes what runs for a work tree.
pub(crate) struct Lock(#[allow(dead_code, reason = "unlocks when it is dropped")] File);

impl Lock {
    pub(crate) fn take(records: &Records) -> Result<Self> {
        let path = records.file("lock");
        let file = File::create(&path).doing(format!("write {}", path.display()))?;
        if file.try_lock().is_err() {
            say::detail("waiting for another command that starts or stops services");
            file.lock().doing(format!("lock {}", path.display()))?;
        }
        Ok(Self(file))
    }
}

/// What the environment says, where it says something.
pub(crate) fn url_from_environment(service: &dyn Service) -> Option<String> {
    std::env::var(service.variable())
        .ok()
        .filter(|url| !url.trim().is_empty())
}

/// Looks at a service without changing anything.
pub(crate) fn state(service: &dyn Service, records: &Records) -> State {
    if let Some(url) = url_from_environment(service) {
        let answers = url_answers(service, &url);
        return State::Environment { url, answers };
    }
    match records.load(service.kind()) {
        None => State::Down,
        Some(record) if runs(&record) && port_answers(service, record.port) => State::Ours(record),
        Some(record) => State::Broken(record),
    }
}

/// Finds or starts services of the test set. The caller holds the [`Lock`].
pub(crate) fn up(
    workspace: &Workspace,
    records: &Records,
    choice: Choice,
    keep: bool,
    services: Vec<&'static dyn Service>,
) -> Result<Vec<Ready>> {
    let mut ready = Vec::new();
    for service in services {
        ready.push(one_up(service, workspace, records, choice, keep)?);
    }
    Ok(ready)
}

/// Ends the services that we started, or one of them; says how many. The caller holds the [`Lock`].
pub(crate) fn down(records: &Records, wanted: Option<Kind>) -> Result<usize> {
    let mut ended = 0;
    let services = Kind::test_set().into_iter();
    for service in services.filter(|one| wanted.is_none_or(|kind| kind == one.kind())) {
        if let Some(record) = records.load(service.kind()) {
            say::detail(format!(
                "{}: ending {}",
                service.kind().name(),
                record.describe()
            ));
            end(service.kind(), records, &record)?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Ends one service, deletes its data and forgets it.
pub(crate) fn end(kind: Kind, records: &Records, record: &Record) -> Result<()> {
    match &record.origin {
        Origin::Docker { container } => docker::stop(container)?,
        Origin::Debian13 { process } | Origin::Host { process } => {
            let ending = kind.service().ending();
            match process {
                Some(process) => process.end(ending)?,
                None => {
                    for process in Owned::all_marked(&record.mark) {
                        process.end(ending)?;
                    }
                }
            }
            // Helpers that a server leaves behind, such as RabbitMQ's `epmd`.
            for left in Owned::all_left_by(&record.mark) {
                left.end(KILL)?;
            }
            if let Some(data) = &record.data {
                delete_data(data, &record.mark)?;
            }
        }
    }
    records.remove(kind)
}

fn one_up(
    service: &'static dyn Service,
    workspace: &Workspace,
    records: &Records,
    choice: Choice,
    keep: bool,
) -> Result<Ready> {
    let kind = service.kind();
    let name = kind.name();
    match state(service, records) {
        State::Environment { url, answers: true } => {
            let how = format!("named by {}", service.variable());
            return Ok(Ready { service, url, how });
        }
        State::Environment { .. } => {
            let variable = service.variable();
            return fail(format!(
                "{name}: nothing answers at the address in {variable}; start that server, or \
                 unset the variable to let this command start one"
            ));
        }
        State::Ours(mut record) => {
            refuse_another_source(&record, choice)?;
            record.kept |= keep;
            records.save(kind, &record)?;
            let how = format!("running already: {}", record.describe());
            return Ok(Ready {
                service,
                url: service.url(record.port),
                how,
            });
        }
        State::Broken(record) => {
            say::detail(format!(
                "{name}: no answer from {}; starting anew",
                record.describe()
            ));
            end(kind, records, &record)?;
        }
        State::Down => {}
    }
    say::step(format!("{name}: starting"));
    let mut record = start(service, workspace, records, choice)?;
    record.kept = keep;
    records.save(kind, &record)?;
    Ok(Ready {
        service,
        url: service.url(record.port),
        how: record.describe(),
    })
}

fn start(
    service: &dyn Service,
    workspace: &Workspace,
    records: &Records,
    choice: Choice,
) -> Result<Record> {
    let kind = service.kind();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let name = format!(
        "sagabus-{}-{}-{}",
        kind.name(),
        workspace.tree_name(),
        now.as_millis()
    );
    let log = records.file(&format!("{}.log", kind.name()));
    fs::write(&log, "").doing(format!("write {}", log.display()))?;
    let announce = |record: &Record| records.save(kind, record);
    let request = Request {
        source: choice.source,
        install: choice.install,
        name: &name,
        log: &log,
        announce: &announce,
    };
    let started = match (choice.source, docker::engine()) {
        (Source::Auto | Source::Docker, Some(_)) => docker::start(service, &request),
        (Source::Docker, None) => fail("no Docker engine answers (`docker info`)"),
        (Source::Auto | Source::Debian13 | Source::Host, _) => service.start_locally(&request),
    };
    // A failed or interrupted start leaves nothing behind.
    if started.is_err()
        && let Some(half) = records.load(kind)
        && let Err(error) = end(kind, records, &half)
    {
        say::detail(format!("{}: cannot clean up: {error}", kind.name()));
    }
    started
}

fn refuse_another_source(record: &Record, choice: Choice) -> Result<()> {
    let same = match choice.source {
        Source::Auto => true,
        Source::Docker => matches!(record.origin, Origin::Docker { .. }),
        Source::Debian13 => matches!(record.origin, Origin::Debian13 { .. }),
        Source::Host => matches!(record.origin, Origin::Host { .. }),
    };
    if same {
        return Ok(());
    }
    let runs = record.describe();
    fail(format!(
        "{runs} is running; type `cargo xtask services down` first"
    ))
}

fn runs(record: &Record) -> bool {
    match &record.origin {
        Origin::Docker { container } => docker::is_running(container),
        Origin::Debian13 { process } | Origin::Host { process } => {
            process.as_ref().is_some_and(Owned::is_running)
        }
    }
}

fn port_answers(service: &dyn Service, port: u16) -> bool {
    service.answers(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn url_answers(service: &dyn Service, url: &str) -> bool {
    service.addresses(url).iter().any(|(host, port)| {
        let addresses = (host.as_str(), *port).to_socket_addrs();
        addresses.is_ok_and(|mut found| found.any(|address| service.answers(address)))
    })
}

/// Deletes a data folder, if it is one of ours: named by its mark.
fn delete_data(data: &Path, mark: &str) -> Result<()> {
    if data.file_name().is_none_or(|name| name != mark) {
        return fail(format!(
            "{} is not a data folder of {mark}; not deleted",
            data.display()
        ));
    }
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(format!("delete {}", data.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_named_by_the_mark_is_deleted() {
        let mark = format!("xtask-data-{}", std::process::id());
        let folder = std::env::temp_dir().join(&mark);
        fs::create_dir_all(folder.join("deep")).unwrap();
        assert!(delete_data(&folder, "another-mark").is_err());
        assert!(folder.exists());
        delete_data(&folder, &mark).unwrap();
        assert!(!folder.exists());
        delete_data(&folder, &mark).unwrap();
    }

    #[test]
    fn an_explicit_source_is_not_answered_with_another_one() {
        let record = Record {
            origin: Origin::Host { process: None },
            version: "PostgreSQL 15".into(),
            port: 1,
            data: None,
            mark: "m".into(),
            kept: false,
        };
        let with = |source| {
            refuse_another_source(
                &record,
                Choice {
                    source,
                    install: false,
                },
            )
        };
        assert!(with(Source::Auto).is_ok());
        assert!(with(Source::Host).is_ok());
        assert!(with(Source::Docker).is_err());
        assert!(with(Source::Debian13).is_err());
    }
}
