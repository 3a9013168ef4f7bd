//! The library that sets the clock of one process, for hosts whose clock goes wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt;
use crate::say;

/// Names the library to tests.
const VARIABLE: &str = "SAGABUS_FAKETIME";
/// Where packages put it: below a folder for the machine's kind, or not.
const FOLDERS: &str = "/usr/lib";
const NAME: &str = "faketime/libfaketimeMT.so.1";
const PACKAGE: &str = "libfaketime";

/// What tests are told, where the library is.
pub(crate) fn variable() -> Option<(&'static str, String)> {
    let library = library(Path::new(FOLDERS))?;
    Some((VARIABLE, library.display().to_string()))
}

/// Takes the variable from a command that is to know of no service.
pub(crate) fn forget(command: &mut Command) {
    command.env_remove(VARIABLE);
}

/// Installs the library where that is possible. Who misses it says that clocks go right.
pub(crate) fn have(install: bool, log: &Path) {
    let may = apt::is_here() && (apt::is_root() || install);
    if may
        && library(Path::new(FOLDERS)).is_none()
        && let Err(error) = apt::install(&[PACKAGE], log)
    {
        say::detail(format!("no {PACKAGE}, so no clock is set: {error}"));
    }
}

fn library(folder: &Path) -> Option<PathBuf> {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = below.map(|entry| entry.path().join(NAME)).collect();
    found.push(folder.join(NAME));
    found.retain(|path| path.is_file());
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_below_the_folder_of_the_machines_kind() {
        let name = format!("xtask-faketime-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let place = folder.join("x86_64-linux-gnu").join(NAME);
        fs::create_dir_all(place.parent().expect("it is in a folder")).unwrap();
        assert_eq!(library(&folder), None);
        fs::write(&place, "").unwrap();
        assert_eq!(library(&folder), Some(place));
        fs::remove_dir_all(&folder).unwrap();
    }
}
