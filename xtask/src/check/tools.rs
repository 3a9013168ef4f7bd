//! Checks that other programs make: formatting, lints, documentation, the dependency graph.

use std::path::PathBuf;
use std::process::Command;

use super::finding::Finding;
use super::list::{Outcome, Tree};
use crate::fail::Result;
use crate::process;

/// What the facade's default features must not build: CMake, OpenSSL, protoc, Node.
const FOREIGN: &[&str] = &[
    "openssl-sys",
    "openssl-src",
    "native-tls",
    "cmake",
    "aws-lc-sys",
    "rdkafka-sys",
    "prost-build",
    "protobuf-src",
];

pub(crate) fn fmt(tree: &Tree) -> Result<Outcome> {
    let mut command = tree.workspace.cargo();
    command.args(["fmt", "--all", "--check"]);
    passes(&mut command, "run `cargo fmt --all`")
}

pub(crate) fn clippy(tree: &Tree) -> Result<Outcome> {
    let mut command = tree.workspace.cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--all-features"]);
    passes(
        command.args(["--", "-D", "warnings"]),
        "see the lints above",
    )
}

pub(crate) fn docs(tree: &Tree) -> Result<Outcome> {
    let mut command = tree.workspace.cargo();
    command.args(["doc", "--no-deps", "--workspace", "--all-features"]);
    passes(
        command.env("RUSTDOCFLAGS", "-D warnings"),
        "see the warnings above",
    )
}

/// `deny.toml` says the directions again for those who have cargo-deny, and the licences.
pub(crate) fn deny(tree: &Tree) -> Result<Outcome> {
    if !process::succeeds(tree.workspace.cargo().args(["deny", "--version"])) {
        return Ok(Outcome::NotRun("cargo-deny is not installed".to_owned()));
    }
    let mut command = tree.workspace.cargo();
    command.args(["deny", "--workspace", "--all-features", "check"]);
    command.args(["bans", "licenses", "sources"]);
    passes(&mut command, "see deny.toml")
}

/// The facade's default features need a C compiler and nothing else.
pub(crate) fn defaults(tree: &Tree) -> Result<Outcome> {
    let mut command = tree.workspace.cargo();
    command.args(["tree", "--package", "sagabus", "--edges", "normal,build"]);
    command.args(["--prefix", "none", "--format", "{p}"]);
    let graph = process::capture(&mut command)?;
    Ok(Outcome::of(foreign(&graph)))
}

fn foreign(graph: &str) -> Vec<Finding> {
    let names: Vec<&str> = graph
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let present = FOREIGN.iter().filter(|name| names.contains(name));
    present
        .map(|name| Finding {
            path: "Cargo.toml".to_owned(),
            line: 1,
            fact: format!("the default features of `sagabus` build `{name}`"),
            remedy: format!("put it behind a feature; `cargo tree -p sagabus -i {name}` shows why"),
        })
        .collect()
}

/// Scripts say the same as a shell would: `.ci/run` is checked for its syntax.
pub(crate) fn scripts(tree: &Tree) -> Result<Outcome> {
    let is_script = |file: &&PathBuf| {
        file.extension().is_some_and(|extension| extension == "sh") || file.starts_with(".ci")
    };
    for script in tree.files.iter().filter(is_script) {
        let mut command = Command::new("bash");
        command.arg("-n").arg(tree.workspace.root.join(script));
        if let Outcome::Broken(remedy) = passes(&mut command, "see the message above")? {
            return Ok(Outcome::Broken(format!("{}: {remedy}", script.display())));
        }
    }
    Ok(Outcome::Passed)
}

fn passes(command: &mut Command, remedy: &str) -> Result<Outcome> {
    let shown = process::show(command);
    let status = process::inherit(command)?;
    if status.success() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Broken(format!(
        "`{shown}` ended with {status}; {remedy}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_builds_in_the_default_graph_are_found() {
        let graph = "sagabus v0.1.0 (x)\nlibsqlite3-sys v0.37.0\ncmake v0.1.54\nserde v1 (*)\n";
        let found = foreign(graph);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].to_string().contains("build `cmake`"),
            "{}",
            found[0]
        );
        assert!(foreign("sagabus v0.1.0\ncc v1.2\nlibsqlite3-sys v0.37.0\n").is_empty());
    }
}
