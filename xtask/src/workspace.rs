//! Where things are: the work tree, its files, its packages and our cache folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::fail::{Doing, Result, fail};
use crate::process;

/// Has the system's OpenSSL used where it is not 0; `.cargo/config.toml` says 1.
const SYSTEMS_OPENSSL: &str = "OPENSSL_NO_VENDOR";

/// The work tree that the command was called in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
}

/// A package of this workspace, as `cargo metadata` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

impl Workspace {
    /// Finds the work tree upwards from the current folder.
    pub(crate) fn find() -> Result<Self> {
        let start = std::env::current_dir().doing("tell the current folder")?;
        let found = start
            .ancestors()
            .find(|folder| folder.join("xtask/Cargo.toml").is_file());
        match found {
            Some(root) => Ok(Self {
                root: root.to_owned(),
            }),
            None => fail(format!(
                "{} is not inside the sagabus work tree",
                start.display()
            )),
        }
    }

    /// A `cargo` call at the root, free of what the `cargo run` around us has set.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os().filter(|(name, _)| belongs_to_outer_run(name)) {
            command.env_remove(name);
        }
        if !has_openssl() {
            command.env(SYSTEMS_OPENSSL, "0");
        }
        command
    }

    /// The folder of what cargo builds.
    pub(crate) fn target(&self) -> PathBuf {
        let set = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
        self.root.join(set.unwrap_or_else(|| "target".into()))
    }

    /// The packages of this workspace, without what they depend on.
    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let mut command = self.cargo();
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        let text = process::capture(&mut command)?;
        let metadata: Metadata = serde_json::from_str(&text).doing("read `cargo metadata`")?;
        Ok(metadata.packages)
    }

    /// Every file that git tracks or would track, relative to the root, sorted.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut command = Command::new("git");
        command.current_dir(&self.root);
        command.args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let text = process::capture(&mut command)?;
        let mut files: Vec<PathBuf> = text
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect();
        files.sort();
        files.dedup();
        files.retain(|file| self.root.join(file).is_file());
        Ok(files)
    }

    /// A short name for this work tree, different for different paths: `main-3fb2a08c`.
    pub(crate) fn tree_name(&self) -> String {
        let folder = self
            .root
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into());
        let short: String = folder
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(20)
            .collect();
        format!("{short}-{:08x}", fold_path(&self.root))
    }
}

/// The folder for what is slow to make and can be made again: `$XDG_CACHE_HOME/sagabus`, else
/// `~/.cache/sagabus`.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => Ok(PathBuf::from(cache).join("sagabus")),
        (None, Some(home)) => Ok(PathBuf::from(home).join(".cache/sagabus")),
        (None, None) => fail("cannot tell where the cache folder is: set HOME"),
    }
}

/// Whether there is an OpenSSL to build with, as `openssl-sys` will look for it.
fn has_openssl() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        std::env::var_os("OPENSSL_DIR").is_some()
            || process::succeeds(Command::new("pkg-config").args(["--exists", "openssl"]))
    });
    *HAS
}

fn belongs_to_outer_run(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&&*name)
}

/// FNV-1a, 32 bits: the same in every version of this program, unlike the standard hasher.
fn fold_path(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_names_differ_by_the_whole_path() {
        let name = |root: &str| {
            Workspace {
                root: PathBuf::from(root),
            }
            .tree_name()
        };
        assert_ne!(name("/a/main"), name("/b/main"));
        assert!(name("/a/my tree!").starts_with("mytree-"));
        assert_eq!(name("/a/main"), name("/a/main"));
    }

    #[test]
    fn variables_of_the_outer_cargo_run_are_not_passed_on() {
        assert!(belongs_to_outer_run(&OsString::from("CARGO_PKG_NAME")));
        assert!(!belongs_to_outer_run(&OsString::from("CARGO_TARGET_DIR")));
        assert!(!belongs_to_outer_run(&OsString::from("CARGO_HOME")));
    }
}
