//! Clients of another language, run as their users run them, by the Python that
//! `cargo xtask services` equips for this.

use std::path::Path;
use std::process::Command;

/// Names the interpreter.
const PYTHON: &str = "SAGABUS_PYTHON";

/// Runs a script of `tests/foreign` and returns the lines that it prints; `None`, with a word, where
/// there is no Python for it.
///
/// # Panics
/// When the script fails.
pub async fn run(script: &str, words: &[&str]) -> Option<Vec<String>> {
    let Ok(python) = std::env::var(PYTHON) else {
        crate::service::skip(&format!("{PYTHON} is not set: no foreign client"));
        return None;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/foreign");
    let mut command = Command::new(python);
    command.arg(folder.join(script)).args(words);
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = running.await.expect("it is waited for");
    let output = output.expect("Python can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    Some(printed.lines().map(str::to_owned).collect())
}
