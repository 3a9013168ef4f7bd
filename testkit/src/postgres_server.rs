//! A PostgreSQL server of a test's own, to be crashed and started again, by the script that
//! `cargo xtask services` writes for this.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the script.
const SCRIPT: &str = "SAGABUS_POSTGRES_SCRIPT";

/// A server; its processes and its data are gone when this is dropped.
#[derive(Debug)]
pub struct PostgresServer {
    script: String,
    name: String,
    port: u16,
}

impl PostgresServer {
    /// Starts a server with a new data folder; `None`, with a word, where there is nothing to make
    /// one of.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let server = Self::make()?;
        server.restart();
        Some(server)
    }

    /// Makes a data folder, and starts nothing yet; `None` as above.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn make() -> Option<Self> {
        let Ok(script) = std::env::var(SCRIPT) else {
            crate::service::skip(&format!("{SCRIPT} is not set: no server to crash"));
            return None;
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let address = listener.and_then(|listener| listener.local_addr());
        let server = Self {
            script,
            name: format!("sagabus-postgres-test-{}-{number}", std::process::id()),
            port: address.expect("a port can be listened on").port(),
        };
        assert!(
            server.run("make", &[&server.port.to_string()]),
            "a data folder can be made"
        );
        Some(server)
    }

    /// Returns the URL of its first database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns its data folder as this process sees it, and as the server does; `None` where the
    /// script is older than this question.
    pub fn data(&self) -> Option<(PathBuf, PathBuf)> {
        let mut ask = Command::new("sh");
        let said = ask
            .args([&self.script, "where", &self.name])
            .output()
            .ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let mut lines = said.lines().map(PathBuf::from);
        Some((lines.next()?, lines.next()?))
    }

    /// Ends all its processes at once; what they had in memory is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn crash(&self) {
        assert!(self.run("crash", &[]), "the server can be crashed");
    }

    /// Starts it on its port and its data, and returns when it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&self) {
        assert!(self.run("start", &[]), "the server starts");
    }

    fn run(&self, verb: &str, more: &[&str]) -> bool {
        // A session of its own: what ends the test's group is not meant for it.
        let mut command = Command::new("setsid");
        command.args(["--wait", "sh", &self.script, verb, &self.name]);
        command.args(more).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().expect("`setsid` is there");
        status.success()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // What is left otherwise is a folder in the place for such folders.
        let _ = self.run("remove", &[]);
    }
}
