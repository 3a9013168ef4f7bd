//! Packages of this machine: installing them without questions, and where they come from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fail::{Doing, Result};
use crate::{process, say};

/// Programs that packages run to ask whether a service may start.
const POLICY: &str = "usr/sbin/policy-rc.d";

/// Whether we may install packages as we are.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this machine has apt at all.
pub(crate) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// What a person types to install these packages.
pub(crate) fn one_command(packages: &[&str]) -> String {
    format!(
        "sudo apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Installs packages on this machine; no service is started by it.
pub(crate) fn install(packages: &[&str], log: &Path) -> Result<()> {
    say::detail(format!(
        "installing {} (log: {})",
        packages.join(" "),
        log.display()
    ));
    let _quiet = ServicesStayDown::on(Path::new("/"))?;
    let plain = || {
        let root = is_root();
        let mut command = Command::new(if root { "env" } else { "sudo" });
        command.args(if root { &[][..] } else { &["-n", "env"][..] });
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    };
    install_with(plain, packages, log)
}

/// Installs with the `apt-get` that `apt` makes: at once where the package lists are there and
/// fresh, else after an update of them.
pub(crate) fn install_with(apt: impl Fn() -> Command, names: &[&str], log: &Path) -> Result<()> {
    let install = || {
        let mut command = apt();
        command.args(["-o", "DPkg::Lock::Timeout=300", "install", "-y"]);
        command.arg("--no-install-recommends").args(names);
        command
    };
    if process::logged(&mut install(), log).is_ok() {
        return Ok(());
    }
    crate::interrupt::check()?;
    say::detail("updating the package lists first");
    process::logged(apt().arg("update"), log)?;
    process::logged(&mut install(), log)
}

/// While this lives, packages that are installed under `root` do not start their services.
#[derive(Debug)]
pub(crate) struct ServicesStayDown(Option<PathBuf>);

impl ServicesStayDown {
    /// Writes the policy unless the machine has one, or we may not write it.
    pub(crate) fn on(root: &Path) -> Result<Self> {
        let file = root.join(POLICY);
        if file.exists() || !is_root() {
            return Ok(Self(None));
        }
        write_policy(&file)?;
        Ok(Self(Some(file)))
    }
}

impl Drop for ServicesStayDown {
    fn drop(&mut self) {
        if let Some(file) = self.0.take()
            && let Err(error) = fs::remove_file(&file)
        {
            say::detail(format!("cannot delete {}: {error}", file.display()));
        }
    }
}

/// Writes a policy that stays: for root folders of our own.
pub(crate) fn forbid_services(root: &Path) -> Result<()> {
    write_policy(&root.join(POLICY))
}

fn write_policy(file: &Path) -> Result<()> {
    let what = format!("write {}", file.display());
    fs::write(file, "#!/bin/sh\nexit 101\n").doing(&what)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).doing(&what)
}

/// Where this machine gets Debian packages from, if it is a Debian.
pub(crate) fn debian_mirror() -> Option<String> {
    let system = fs::read_to_string("/etc/os-release").ok()?;
    if !system.lines().any(|line| line.trim() == "ID=debian") {
        return None;
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let folder = fs::read_dir("/etc/apt/sources.list.d").ok();
    files.extend(
        folder
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files.sort();
    files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "sources" => mirror_of_stanzas(&text),
            "list" => mirror_of_lines(&text),
            _ => None,
        }
    })
}

/// The first usable `URIs` of a file in the stanza form.
fn mirror_of_stanzas(text: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let is_off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let suites = field("Suites")?;
        let has_packages = field("Types")?.split_whitespace().any(|kind| kind == "deb");
        if is_off || !has_packages || !is_archive(suites, field("Components")?) {
            return None;
        }
        field("URIs")?
            .split_whitespace()
            .find(|uri| is_web(uri))
            .map(str::to_owned)
    })
}

/// The first usable `deb` line of a file in the one-line form.
fn mirror_of_lines(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') {
            rest.split_once(']')?.1
        } else {
            rest
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let components = words.collect::<Vec<_>>().join(" ");
        (is_web(uri) && is_archive(suite, &components)).then(|| uri.to_owned())
    })
}

/// The archive itself: security updates and other vendors' lists have no `trixie`.
fn is_archive(suites: &str, components: &str) -> bool {
    let names = ["bookworm", "trixie", "forky", "sid", "stable", "testing"];
    suites
        .split_whitespace()
        .any(|suite| names.contains(&suite))
        && components
            .split_whitespace()
            .any(|component| component == "main")
}

fn is_web(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_stanzas() {
        let text = "Types: deb\nURIs: http://x.example/security\nSuites: bookworm-security\n\
                    Components: main\n\nTypes: deb\n# a note\nURIs: http://x.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(
            mirror_of_stanzas(text).as_deref(),
            Some("http://x.example/debian")
        );
        assert_eq!(
            mirror_of_stanzas(&text.replace("bookworm bookworm", "other other")),
            None
        );
        let off = text.replace("# a note", "Enabled: no");
        assert_eq!(mirror_of_stanzas(&off), None);
    }

    #[test]
    fn the_mirror_is_read_from_lines() {
        let text = "# deb http://a.example trixie main\ndeb-src http://b.example trixie main\n\
                    deb [signed-by=/k.gpg arch=amd64] https://c.example/debian trixie main\n";
        assert_eq!(
            mirror_of_lines(text).as_deref(),
            Some("https://c.example/debian")
        );
        assert_eq!(mirror_of_lines("deb cdrom:[x]/ trixie main"), None);
    }

    #[test]
    fn the_one_command_names_the_packages() {
        assert!(one_command(&["postgresql"]).ends_with(" postgresql"));
    }
}
