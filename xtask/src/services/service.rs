//! What a service tells about itself, and how it is started from local packages.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::Signal;

use super::docker::Image;
use super::kind::Kind;
use super::record::Record;
use crate::fail::{Doing, Result};

/// Where a server should come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// Docker when its engine answers, else Debian 13 packages, else the host's.
    #[default]
    Auto,
    /// A container.
    Docker,
    /// Packages in a Debian 13 root folder under the cache folder: the versions that users run.
    Debian13,
    /// Packages of this machine: often the oldest version that we support.
    Host,
}

/// What a local start may do and where it may write.
pub(crate) struct Request<'a> {
    pub(crate) source: Source,
    /// Whether packages may be installed on this machine.
    pub(crate) install: bool,
    /// A name that no other start has; part of the data folder's path and so of the command line.
    pub(crate) name: &'a str,
    /// Where the output of what is run goes.
    pub(crate) log: &'a Path,
    /// Called before anything is started, so that a killed `up` can be cleaned up later.
    pub(crate) announce: &'a dyn Fn(&Record) -> Result<()>,
}

/// One service of the test set.
pub(crate) trait Service: Sync {
    /// Which one it is.
    fn kind(&self) -> Kind;

    /// The variable that gives tests its URL: `SAGABUS_POSTGRES_URL`.
    fn variable(&self) -> &'static str;

    /// The URL of a server of ours on this port of 127.0.0.1.
    fn url(&self, port: u16) -> String;

    /// The container to run where there is a Docker engine.
    fn image(&self) -> Image;

    /// Whether a server at this address speaks the service's protocol; at most a second long.
    fn answers(&self, address: SocketAddr) -> bool;

    /// The hosts and ports that a URL names.
    fn addresses(&self, url: &str) -> Vec<(String, u16)> {
        host_and_port(url, self.image().port).into_iter().collect()
    }

    /// What else tests are told, beside the URL.
    fn more_variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// How a server of ours is told to end: each signal, and the time that it may take.
    fn ending(&self) -> &'static [(Signal, Duration)] {
        const STEPS: &[(Signal, Duration)] = &[
            (Signal::TERM, Duration::from_secs(20)),
            (Signal::KILL, Duration::from_secs(5)),
        ];
        STEPS
    }

    /// Starts a server from local packages and returns once it takes connections.
    ///
    /// # Errors
    /// Says what is missing and the one command that helps. Nothing is left running.
    fn start_locally(&self, request: &Request<'_>) -> Result<Record>;
}

/// A port of 127.0.0.1 that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("find a free port")?;
    Ok(listener.local_addr().doing("find a free port")?.port())
}

/// Host and port of a URL, with the service's default port where it has none.
pub(crate) fn host_and_port(url: &str, default_port: u16) -> Option<(String, u16)> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    if let Some(v6) = place.strip_prefix('[') {
        let (host, port) = v6.split_once(']')?;
        return Some((
            host.to_owned(),
            port.strip_prefix(':').map_or(Some(default_port), parse)?,
        ));
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), parse(port)?)),
        None => Some((place.to_owned(), default_port)),
    }
}

fn parse(port: &str) -> Option<u16> {
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found_behind_credentials() {
        let cases = [
            (
                "postgres://me:p@ss@db.example:6000/x?y=1",
                Some(("db.example", 6000)),
            ),
            ("postgres://localhost", Some(("localhost", 5432))),
            ("postgres://[::1]:7000/x", Some(("::1", 7000))),
            ("postgres://[::1]/x", Some(("::1", 5432))),
            ("nonsense", None),
            ("postgres://host:port/x", None),
        ];
        for (url, expected) in cases {
            let found = host_and_port(url, 5432);
            let found = found.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(found, expected, "{url}");
        }
    }
}
