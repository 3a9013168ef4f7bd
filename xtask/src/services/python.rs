//! A Python with the clients that foreign services use, so that tests run them against ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt;
use crate::fail::{Doing, Result, fail};
use crate::workspace::cache_folder;
use crate::{process, say};

/// The clients, pinned: a new release of theirs breaks no build of ours.
const CLIENTS: &[&str] = &["pika==1.3.2", "confluent-kafka==2.12.1"];
/// Part of the folder's name; raised with the clients.
const GENERATION: u32 = 1;
/// Names the interpreter to tests.
const VARIABLE: &str = "SAGABUS_PYTHON";
/// A Debian has Python without what makes environments.
const PACKAGES: &[&str] = &["python3", "python3-venv"];

/// What tests are told, where the environment is made.
pub(crate) fn variable() -> Option<(&'static str, String)> {
    let python = interpreter(&home().ok()?);
    let told = python.display().to_string();
    python.is_file().then_some((VARIABLE, told))
}

/// Takes the variable from a command that is to know of no service.
pub(crate) fn forget(command: &mut Command) {
    command.env_remove(VARIABLE);
}

/// Makes the environment, unless it is there. A folder that is there is whole: it is made under
/// another name.
pub(crate) fn have(install: bool, log: &Path) -> Result<()> {
    let (home, cache) = (home()?, cache_folder()?);
    fs::create_dir_all(&cache).doing(format!("make {}", cache.display()))?;
    let lock = cache.join("python.lock");
    let lock = File::create(&lock).doing(format!("write {}", lock.display()))?;
    lock.lock()
        .doing("wait for another command that fetches Python's clients")?;
    if home.is_dir() {
        return Ok(());
    }
    have_python(install, log)?;
    let draft = home.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).doing(format!("delete {}", draft.display()))?;
    }
    say::detail(format!(
        "fetching {} for Python (log: {})",
        CLIENTS.join(", "),
        log.display()
    ));
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&draft);
    process::logged(&mut venv, log)?;
    let mut pip = Command::new(interpreter(&draft));
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    process::logged(pip.args(CLIENTS), log)?;
    fs::rename(&draft, &home).doing(format!("make {}", home.display()))
}

fn home() -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("python-clients-{GENERATION}")))
}

fn interpreter(home: &Path) -> PathBuf {
    home.join("bin/python")
}

fn have_python(install: bool, log: &Path) -> Result<()> {
    let makes_environments =
        || process::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"]));
    if !makes_environments() && apt::is_here() && (apt::is_root() || install) {
        apt::install(PACKAGES, log)?;
    }
    if makes_environments() {
        return Ok(());
    }
    fail(format!(
        "Python, or what makes its environments, is not installed: clients of other languages are \
         tested with it; type `{}` (or call this with `--install`)",
        apt::one_command(PACKAGES)
    ))
}
