//! A running fault broker, in this process or in one of its own.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tokio::task::JoinSet;

use super::client::FaultTransport;
use super::control::Control;
use super::server::Server;

/// Names the environment variable with the program to run as the broker.
const PROGRAM: &str = "SAGABUS_FAULT_BROKER";

/// A fault broker, which ends when this is dropped.
#[derive(Debug)]
pub struct FaultBroker {
    address: SocketAddr,
    _running: Running,
}

#[derive(Debug)]
enum Running {
    Here(#[expect(dead_code, reason = "ends the server when dropped")] JoinSet<()>),
    Apart(Apart),
}

/// A process that is ended when its owner goes.
#[derive(Debug)]
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        // Only fails where the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl FaultBroker {
    /// Starts a broker inside this process: enough for tests that kill nobody.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn start() -> io::Result<Self> {
        let server = Server::bind(0).await?;
        let address = server.address()?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            let ended = server.run().await;
            panic!("the fault broker ended: {ended:?}");
        });
        Ok(Self {
            address,
            _running: Running::Here(running),
        })
    }

    /// Starts a broker in a process of its own, which outlives every host that a test kills.
    ///
    /// Runs the program that `SAGABUS_FAULT_BROKER` names; without it, builds the testkit's.
    ///
    /// # Errors
    /// When the program cannot be built or started.
    pub fn spawn() -> io::Result<Self> {
        let mut child = Command::new(program()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        let apart = Apart(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| io::Error::other(format!("the fault broker said {line:?}")))?;
        Ok(Self {
            address,
            _running: Running::Apart(apart),
        })
    }

    /// Returns where it listens, for hosts in other processes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a transport to it, with connections of its own.
    pub fn transport(&self) -> FaultTransport {
        FaultTransport::new(self.address)
    }

    /// Returns the way to command it.
    pub fn control(&self) -> Control {
        Control::new(self.address)
    }

    /// Returns its process id, where it has one of its own.
    pub fn process_id(&self) -> Option<u32> {
        match &self._running {
            Running::Here(_) => None,
            Running::Apart(apart) => Some(apart.0.id()),
        }
    }
}

/// Finds or builds the program, once per process.
fn program() -> io::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match env::var_os(PROGRAM) {
        Some(program) => Ok(program.into()),
        None => build().map_err(|error| error.to_string()),
    });
    match built {
        Ok(program) => Ok(program),
        Err(text) => Err(io::Error::other(text.clone())),
    }
}

/// Builds the program into the folder out of which this test runs, where Cargo finds most of it
/// built already.
fn build() -> io::Result<PathBuf> {
    // `<target>/<profile>/deps/<test>`.
    let test = env::current_exe()?;
    let (Some(profile), Some(target)) = (test.ancestors().nth(2), test.ancestors().nth(3)) else {
        return Err(io::Error::other(format!(
            "{} is in no target folder; name the fault broker with {PROGRAM}",
            test.display()
        )));
    };
    let name = profile.file_name().unwrap_or_default();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--bin",
            "fault-broker",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .args(if name == "release" {
            &["--release"][..]
        } else {
            &[]
        })
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "building the fault broker: {status}"
        )));
    }
    Ok(profile.join(format!("fault-broker{}", env::consts::EXE_SUFFIX)))
}
