//! A disk that is full when the schedule says so: a file system in memory, made as small as what is
//! in it, and large again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Says that this process has mounts of its own.
const ALONE: &str = "SAGABUS_CHAOS_MOUNTS";
/// Its size while it is not full; what is not used takes no memory.
const SIZE: &str = "2g";
/// Somebody writes while it is measured.
const TRIES: u32 = 100;

/// Runs this program again with mounts of its own, which nobody else sees and which are gone with
/// it; returns where that is not possible or has happened.
pub(crate) fn have_mounts() {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    let may = may.is_ok_and(|output| output.status.success());
    let Ok(this) = std::env::current_exe() else {
        return;
    };
    if !may || std::env::var_os(ALONE).is_some() {
        return;
    }
    let mut again = Command::new("unshare");
    again
        .args(["--mount", "--propagation", "private"])
        .arg(this);
    again.args(std::env::args_os().skip(1)).env(ALONE, "1");
    // On success there is no way back from it.
    let error = again.exec();
    eprintln!("no mounts of its own: {error}");
}

/// A mounted disk; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts one for whoever owns another folder.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(crate) fn mount(place: &Path, owner: &Path) -> Result<Self, String> {
        if std::env::var_os(ALONE).is_none() {
            return Err("it takes root to mount a disk".to_owned());
        }
        let mount = || -> Result<Self> {
            let owner = fs::metadata(owner).context("its owner is known")?;
            fs::create_dir_all(place).context("a place can be made")?;
            let (user, group) = (owner.uid(), owner.gid());
            let options = format!("size={SIZE},mode=0700,uid={user},gid={group}");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
            run(mount.arg(place))?;
            Ok(Self(place.to_owned()))
        };
        mount().map_err(|error| format!("{error:#}"))
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) -> Result<()> {
        for _ in 0..TRIES {
            let mut measure = Command::new("df");
            measure
                .args(["--block-size=1", "--output=used"])
                .arg(&self.0);
            let used = run(&mut measure)?;
            let used = used.lines().last().context("a number")?.trim().to_owned();
            // Refused where more is used by now.
            if self.resize(&used).is_ok() {
                return Ok(());
            }
        }
        bail!("the disk cannot be made as small as what is in it")
    }

    /// Leaves room again.
    pub(crate) fn make_room(&self) -> Result<()> {
        self.resize(SIZE)
    }

    fn resize(&self, size: &str) -> Result<()> {
        let mut resize = Command::new("mount");
        resize.args(["-o", &format!("remount,size={size}")]);
        run(resize.arg(&self.0)).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left otherwise is gone with this process.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
        let _ = fs::remove_dir(&self.0);
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("it can be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
