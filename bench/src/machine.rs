//! The machine that measures: what it is, how much disk is left, how much this process used.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a figure has to be read with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    pub(crate) cores: usize,
    /// The commit that was built, with `-dirty` where files were changed.
    pub(crate) commit: Option<String>,
    pub(crate) compiler: Option<String>,
    pub(crate) postgres: Option<String>,
    pub(crate) sqlite: Option<String>,
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
}

impl Facts {
    pub(crate) fn read() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            commit: said_by("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            compiler: said_by("rustc", &["--version"]),
            load_before: load(),
            ..Self::default()
        }
    }
}

/// Returns what a program says; `None` where it is not there.
pub(crate) fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Returns the bytes that are free on the disk of a folder.
pub(crate) fn free_bytes(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail * found.f_frsize)
}

/// Forgets the most memory that this process ever had, so that a run's own can be read after it;
/// where the system does not allow that, the figure is that of all runs so far.
pub(crate) fn forget_most_memory() {
    // The figure is documented as an upper bound: nobody is misled where this fails.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Returns the processor time of this process so far, all threads and the kernel's work for them.
pub(crate) fn cpu() -> Duration {
    cpu_by(ClockId::ProcessCPUTime)
}

/// Returns the processor time of this thread so far.
pub(crate) fn cpu_of_thread() -> Duration {
    cpu_by(ClockId::ThreadCPUTime)
}

fn cpu_by(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// Returns how many bytes this process has given to the kernel to write; `None` where that is not
/// counted.
pub(crate) fn bytes_written() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/io").ok()?, "wchar:")
}

/// Returns the processor time of a process of the database; `None` where it is on another machine.
pub(crate) fn cpu_of_postgres(pid: i32) -> Option<Duration> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    name.starts_with("postgres")
        .then(|| Duration::from_nanos(nanos))
}

/// Returns a process's memory in KiB: now, and the most it ever had.
pub(crate) fn memory_kib(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((field(&status, "VmRSS:")?, field(&status, "VmHWM:")?))
}

/// Returns how many processes wanted to run, on average over the last minute.
pub(crate) fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the processor time of the process that listens on a port of this machine.
pub(crate) fn cpu_of_listener(port: u16) -> Option<Duration> {
    let socket = format!("socket:[{}]", socket_of(port)?);
    let is_owner = |folder: &Path| {
        let files = fs::read_dir(folder.join("fd")).into_iter().flatten();
        let mut links = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| link.as_os_str() == socket.as_str())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let owner = processes
        .map(|entry| entry.path())
        .find(|path| is_owner(path))?;
    cpu_of(owner.file_name()?.to_str()?.parse().ok()?)
}

/// Returns the processor time of a process, ended threads included.
pub(crate) fn cpu_of(pid: u32) -> Option<Duration> {
    // Field 14 and 15 of `stat`, in ticks of a hundredth of a second.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(11);
    let ticks = |text: &str| text.parse::<u32>().ok();
    let used = ticks(fields.next()?)? + ticks(fields.next()?)?;
    Some(TICK * used)
}

/// Returns the number of the socket that listens on a port.
fn socket_of(port: u16) -> Option<String> {
    const LISTENS: &str = "0A";
    let port = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let mut sockets = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_meant = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTENS;
        is_meant.then(|| fields.get(9).map(ToString::to_string))?
    });
    sockets.next()
}
