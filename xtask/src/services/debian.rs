//! A Debian 13 root folder in the cache: newer servers than the machine's own packages have.
//!
//! Everything that runs in it runs in a mount namespace of its own, so its `/proc`, `/dev` and
//! `/dev/shm` are seen by nobody else and go away with the last process: there is no mount to
//! clean up, however we end. Needs root, and a Debian machine whose mirror has `trixie`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::apt;
use crate::fail::{Doing, Result, fail};
use crate::workspace::cache_folder;
use crate::{process, say};

/// Sets up what a program in the folder sees, becomes the user, and runs it.
const ENTER: &str = r#"set -e
root=$1; user=$2; shift 2
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
exec chroot --userspec="$user:$user" "$root" "$@""#;

const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Folder inside for the data of servers; each server's user makes its own folder in it.
pub(crate) const DATA: &str = "/srv/sagabus";

/// The root folder, made.
#[derive(Debug, Clone)]
pub(crate) struct RootFolder {
    path: PathBuf,
}

/// Why the root folder cannot be made on this machine, if so.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !apt::is_root() {
        Some("it needs root")
    } else if !apt::is_here() || apt::debian_mirror().is_none() {
        Some("this machine has no Debian package mirror")
    } else if !process::succeeds(&mut private_mounts("true")) {
        Some("this machine does not let us mount")
    } else {
        None
    }
}

/// Whether it was made before.
pub(crate) fn is_cached() -> bool {
    cache_folder().is_ok_and(|cache| cache.join("debian-13").is_dir())
}

impl RootFolder {
    /// Opens the cached folder, or makes it, and installs what is missing in it.
    pub(crate) fn with(packages: &[&str], log: &Path) -> Result<Self> {
        let cache = cache_folder()?;
        fs::create_dir_all(&cache).doing(format!("make {}", cache.display()))?;
        let lock = cache.join("debian-13.lock");
        let lock = File::create(&lock).doing(format!("write {}", lock.display()))?;
        lock.lock()
            .doing("wait for another command that makes the root folder")?;

        let folder = Self {
            path: cache.join("debian-13"),
        };
        if !folder.path.is_dir() {
            make(&folder.path, log)?;
        }
        let missing: Vec<&str> = packages
            .iter()
            .copied()
            .filter(|package| !folder.marker(package).exists())
            .collect();
        if !missing.is_empty() {
            folder.install(&missing, log)?;
        }
        Ok(folder)
    }

    /// A path inside, as the machine sees it.
    pub(crate) fn outside(&self, inside: &Path) -> PathBuf {
        self.path.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// A program inside, run by `user`, in a mount namespace of its own.
    pub(crate) fn command(&self, user: &str, program: &Path) -> Command {
        let mut command = private_mounts("sh");
        command
            .args(["-c", ENTER, "sh"])
            .arg(&self.path)
            .arg(user)
            .arg(program);
        command
            .env_clear()
            .env("PATH", PATHS)
            .env("LANG", "C.UTF-8")
            .env("HOME", "/tmp");
        for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(proxy) {
                command.env(proxy, value);
            }
        }
        command
    }

    fn install(&self, packages: &[&str], log: &Path) -> Result<()> {
        let started = Instant::now();
        say::detail(format!("Debian 13: installing {}", packages.join(" ")));
        let apt = || {
            let mut command = self.command("root", Path::new("/usr/bin/apt-get"));
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        };
        // An earlier install may have been cut off in the middle.
        let mut repair = self.command("root", Path::new("/usr/bin/dpkg"));
        process::logged(repair.args(["--configure", "-a"]), log)?;
        apt::install_with(apt, packages, log)?;
        process::logged(apt().arg("clean"), log)?;
        for package in packages {
            let marker = self.marker(package);
            File::create(&marker).doing(format!("write {}", marker.display()))?;
        }
        say::detail(format!(
            "Debian 13: installed in {}",
            say::time(started.elapsed())
        ));
        Ok(())
    }

    /// Written after a package was installed to the end.
    fn marker(&self, package: &str) -> PathBuf {
        self.outside(Path::new("/var/lib"))
            .join(format!("sagabus-has-{package}"))
    }
}

/// Makes the folder beside its final place and renames it: a half-made one is never used.
fn make(path: &Path, log: &Path) -> Result<()> {
    if let Some(obstacle) = obstacle() {
        return fail(format!(
            "a Debian 13 root folder cannot be made here: {obstacle}"
        ));
    }
    let Some(mirror) = apt::debian_mirror() else {
        return fail("this machine has no Debian package mirror");
    };
    if !process::succeeds(Command::new("debootstrap").arg("--version")) {
        apt::install(&["debootstrap"], log)?;
    }
    remove_drafts(path)?;
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let started = Instant::now();
    say::detail(format!(
        "making a Debian 13 root folder in {} (about 20 s)",
        path.display()
    ));
    let made = fill(&draft, &mirror, log).and_then(|()| {
        fs::rename(&draft, path).doing(format!("put {} into place", path.display()))
    });
    if made.is_err() {
        remove(&draft)?;
    }
    made?;
    say::detail(format!(
        "Debian 13: root folder made in {}",
        say::time(started.elapsed())
    ));
    Ok(())
}

fn fill(draft: &Path, mirror: &str, log: &Path) -> Result<()> {
    let mut debootstrap = private_mounts("debootstrap");
    debootstrap.arg("--variant=minbase");
    if mirror.starts_with("https:") {
        debootstrap.arg("--include=ca-certificates");
    }
    debootstrap.arg("trixie").arg(draft).arg(mirror);
    process::logged(&mut debootstrap, log)?;

    let settings = draft.join("etc/apt/apt.conf.d");
    let own = fs::read_dir("/etc/apt/apt.conf.d").doing("read the machine's apt settings")?;
    for entry in own.flatten() {
        let copy = settings.join(entry.file_name());
        fs::copy(entry.path(), &copy).doing(format!("write {}", copy.display()))?;
    }
    if Path::new("/etc/resolv.conf").exists() {
        fs::copy("/etc/resolv.conf", draft.join("etc/resolv.conf")).doing("copy resolv.conf")?;
    }
    apt::forbid_services(draft)?;
    let data = draft.join(DATA.trim_start_matches('/'));
    fs::create_dir_all(&data).doing(format!("make {}", data.display()))?;
    // Like /tmp: each server's user makes its own folder.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(&data, open).doing(format!("open {}", data.display()))
}

/// Deletes what commands that were killed have left.
fn remove_drafts(path: &Path) -> Result<()> {
    let beside = path.parent().and_then(|cache| fs::read_dir(cache).ok());
    for entry in beside.into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("debian-13.draft-")
        {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    // One file system only: a mount that somebody made by hand is not followed.
    process::capture(
        Command::new("rm")
            .args(["-rf", "--one-file-system"])
            .arg(folder),
    )
    .map(drop)
}

fn private_mounts(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_inside_run_in_a_mount_namespace_of_their_own_and_as_their_user() {
        let folder = RootFolder {
            path: PathBuf::from("/cache/debian-13"),
        };
        let mut command = folder.command("postgres", Path::new("/usr/bin/initdb"));
        let shown = process::show(command.arg("-D"));
        assert!(shown.starts_with("unshare --mount --propagation private sh -c set -e"));
        assert!(
            shown.ends_with("sh /cache/debian-13 postgres /usr/bin/initdb -D"),
            "{shown}"
        );
    }

    #[test]
    fn inside_and_outside_paths_are_the_same_file() {
        let folder = RootFolder {
            path: PathBuf::from("/cache/debian-13"),
        };
        let data = folder.outside(&Path::new(DATA).join("x"));
        assert_eq!(data, Path::new("/cache/debian-13/srv/sagabus/x"));
    }
}
