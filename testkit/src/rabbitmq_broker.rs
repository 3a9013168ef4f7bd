//! A RabbitMQ broker of a test's own, to be killed and started again, by the script that
//! `cargo xtask services` writes for this.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Names the script.
const SCRIPT: &str = "SAGABUS_RABBITMQ_SCRIPT";
/// A start on a machine with much else to do; usually 4 s.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a starting or dying broker.
const PACE: Duration = Duration::from_millis(50);

/// A broker; its processes and its data are gone when this is dropped.
#[derive(Debug)]
pub struct RabbitMqBroker {
    script: String,
    name: String,
    port: u16,
    distribution: u16,
    epmd: u16,
}

impl RabbitMqBroker {
    /// Starts a broker with a new data folder; `None`, with a word, where there is nothing to make
    /// one of.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let Ok(script) = std::env::var(SCRIPT) else {
            crate::service::skip(&format!("{SCRIPT} is not set: no broker to kill"));
            return None;
        };
        let broker = Self::named(script, free_port());
        broker.restart();
        Some(broker)
    }

    /// Starts a cluster of three; `None`, with a word, where there is nothing to make one of.
    ///
    /// # Panics
    /// When a node does not start or join.
    pub fn start_three() -> Option<Vec<Self>> {
        let first = Self::start()?;
        let mut nodes = vec![first];
        for _ in 0..2 {
            // One `epmd` for all: by it they find each other.
            let node = Self::named(nodes[0].script.clone(), nodes[0].epmd);
            node.restart();
            node.control(&["stop_app"]);
            node.control(&["join_cluster", &nodes[0].node()]);
            node.control(&["start_app"]);
            nodes.push(node);
        }
        Some(nodes)
    }

    fn named(script: String, epmd: u16) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            script,
            name: format!("sagabus-rabbitmq-test-{}-{number}", std::process::id()),
            port: free_port(),
            distribution: free_port(),
            epmd,
        }
    }

    /// Returns its name as a node.
    pub fn node(&self) -> String {
        format!("{}@localhost", self.name)
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}", self.address())
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Kills it, as a machine that loses its power would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self) {
        let pids = self.pids("beam.smp");
        assert!(!pids.is_empty(), "the broker runs");
        pids.into_iter().for_each(kill);
        let gone = until(|| self.pids("beam.smp").is_empty());
        assert!(gone.is_some(), "the broker's process ends");
    }

    /// Starts it on its port and its data; returns how long it took until it answered.
    ///
    /// # Panics
    /// When it does not come up within a minute.
    pub fn restart(&self) -> Duration {
        let started = Instant::now();
        let words = [self.port, self.distribution, self.epmd].map(|port| port.to_string());
        // A session of its own: what ends the test's group is not meant for it.
        let mut server = Command::new("setsid");
        server.args(["--fork", "sh", &self.script, "serve", &self.name]);
        server.args(words).stdin(Stdio::null());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let status = server.status().expect("`setsid` is there");
        assert!(status.success(), "the broker's script runs");
        let is_ready = until(|| self.greets());
        assert!(is_ready.is_some(), "no broker within {READY_WITHIN:?}");
        started.elapsed()
    }

    /// Runs `rabbitmqctl` with these words and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn control(&self, words: &[&str]) -> String {
        let mut command = Command::new("sh");
        command.args([&self.script, "ctl", &self.name, &self.epmd.to_string()]);
        let output = command.args(words).stdin(Stdio::null()).output();
        let output = output.expect("`rabbitmqctl` runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}{error}");
        said
    }

    /// Lets it speak TLS on a port more, with this certificate and its PKCS #8 key, both in DER;
    /// returns the port.
    ///
    /// # Panics
    /// When it does not.
    pub fn listen_tls(&self, certificate: &[u8], key: &[u8]) -> u16 {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let port = free_port();
        let said = self.control(&[
            "eval",
            &format!(
                "{{ok, _}} = application:ensure_all_started(ssl), \
                 rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, \
                 [{{cert, binary:decode_hex(<<\"{}\">>)}}, \
                 {{key, {{'PrivateKeyInfo', binary:decode_hex(<<\"{}\">>)}}}}], 2).",
                hex(certificate),
                hex(key)
            ),
        ]);
        assert!(said.contains("ok"), "no listener: {said}");
        port
    }

    /// Says hello, and is asked back which mechanisms we know: then log-ins are taken.
    fn greets(&self) -> bool {
        let greet = || -> std::io::Result<u8> {
            let mut stream = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"AMQP\x00\x00\x09\x01")?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        greet().is_ok_and(|frame| frame == 1)
    }

    /// Our processes: the broker, or the `epmd` that it started. Both have our name in their
    /// environment.
    fn pids(&self, program: &str) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let environment = read("environ");
            let mut words = environment.split(|byte| *byte == 0);
            read("comm").starts_with(program.as_bytes())
                && words.any(|word| word.ends_with(self.name.as_bytes()))
        };
        pids.filter(is_ours).collect()
    }
}

impl Drop for RabbitMqBroker {
    fn drop(&mut self) {
        for program in ["beam.smp", "epmd"] {
            self.pids(program).into_iter().for_each(kill);
        }
        // What is left otherwise is a folder in the place for such folders.
        let mut remove = Command::new("sh");
        let _ = remove.args([&self.script, "remove", &self.name]).status();
    }
}

/// Looks until it is so; `None` when it never is.
fn until(mut look: impl FnMut() -> bool) -> Option<()> {
    let started = Instant::now();
    while started.elapsed() < READY_WITHIN {
        if look() {
            return Some(());
        }
        std::thread::sleep(PACE);
    }
    None
}

fn kill(pid: i32) {
    // One that has ended meanwhile is what we want.
    let _ = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = listener.expect("a port can be listened on");
    listener.local_addr().expect("it is bound").port()
}
