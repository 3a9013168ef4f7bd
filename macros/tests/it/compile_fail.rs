//! Mistakes that the compiler finds, and the words in which it says so.
//!
//! They stand here and not beside the facade because here the facade has no feature of a store:
//! which crates the compiler has loaded decides how it writes some paths.
//!
//! `TRYBUILD=overwrite cargo test -p sagabus-macros --test it compile_fail` writes the expected
//! words anew.

use std::process::Command;

/// Compilers word errors differently; the expected ones are of this.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn mistakes_are_compile_errors_that_name_the_fix() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    if !version.starts_with(COMPILER) {
        println!(
            "not run: the expected errors are those of {COMPILER}x, and this is {}",
            version.trim()
        );
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
