//! The machine that measures: what it is, what a sync costs, how much this process used.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What a figure has to be read with.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    pub(crate) cores: usize,
    pub(crate) fsync_micros: f64,
    pub(crate) postgres: Option<String>,
    pub(crate) sqlite: Option<String>,
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
}

impl Facts {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            fsync_micros: fsync_micros(folder)?,
            load_before: load(),
            ..Self::default()
        })
    }
}

/// Returns what one `fdatasync` of a page costs, as the median of a few hundred.
fn fsync_micros(folder: &Path) -> Result<f64> {
    const SYNCS: usize = 200;
    let path = folder.join("fsync");
    let options = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path);
    let mut file = options.with_context(|| format!("cannot write `{}`", path.display()))?;
    let page = [7; 8192];
    file.write_all(&page)?;
    file.sync_all()?;
    let mut micros = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&page)?;
        let started = Instant::now();
        file.sync_data()?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    micros.sort_by(f64::total_cmp);
    Ok(micros[SYNCS / 2])
}

/// Returns the processor time of this process so far, all threads and the kernel's work for them.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
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
