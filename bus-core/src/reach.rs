//! Whether a server is on this machine, and whether what travels to it may be read on the way.

use std::net::IpAddr;

/// Says where a connection may go without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// To this machine alone; beyond it TLS is needed.
    #[default]
    ToThisMachine,
    /// Everywhere: the network is closed, or something else encrypts it. Whoever is on the way
    /// reads messages and passwords.
    Everywhere,
}

impl Plaintext {
    /// Says whether a connection to this host may do without TLS.
    pub fn reaches(self, host: &str) -> bool {
        self == Self::Everywhere || is_this_machine(host)
    }
}

/// Says whether a host, as a URL names it, is this machine: a loopback address, `localhost`, or the
/// folder of a socket. Asks no name server: what one says today it may not say tomorrow.
pub fn is_this_machine(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() || host.starts_with('/') || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    host.parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "/run/pg",
            "",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "db",
            "10.0.0.1",
            "0.0.0.0",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "::ffff:10.0.0.1",
            "2001:db8::1",
        ] {
            assert!(!is_this_machine(host), "{host}");
            assert!(!Plaintext::ToThisMachine.reaches(host), "{host}");
            assert!(Plaintext::Everywhere.reaches(host), "{host}");
        }
        assert!(is_this_machine("::ffff:127.0.0.1"));
    }
}
