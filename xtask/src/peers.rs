//! Others' programs for the bench: built where their tools are, in a workspace of their own, so that
//! nothing of theirs is in our graph.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fail::Result;
use crate::workspace::Workspace;
use crate::{process, say};

/// The variable by which the bench finds the programs.
pub(crate) const FOLDER: &str = "SAGABUS_BENCH_PEERS";

/// One program, by the name that the bench calls it.
struct Peer {
    name: &'static str,
    /// Who is in it, for people.
    who: &'static str,
    build: fn(&Workspace, &Path) -> Command,
}

const PEERS: [Peer; 3] = [
    Peer {
        name: "peers-rust",
        who: "graphile_worker, apalis and hexeract",
        build: rust,
    },
    Peer {
        name: "peers-go",
        who: "River",
        build: river,
    },
    Peer {
        name: "peers-watermill",
        who: "Watermill's forwarder",
        build: watermill,
    },
];

/// Builds those that are needed and returns their folder; what cannot be built is said and is not
/// run.
pub(crate) fn build(workspace: &Workspace, needed: &str) -> Result<PathBuf> {
    let folder = workspace.target().join("peers");
    for peer in PEERS {
        if !needed.lines().any(|name| name == peer.name) {
            continue;
        }
        say::step(format!("build {}: {}", peer.name, peer.who));
        // A tool that is not there is an error as well.
        let is_built = process::inherit(&mut (peer.build)(workspace, &folder));
        if !is_built.is_ok_and(|status| status.success()) {
            say::detail(format!("not run: {} cannot be built here", peer.who));
        }
    }
    Ok(folder.join("release"))
}

fn rust(workspace: &Workspace, folder: &Path) -> Command {
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--locked", "--manifest-path"]);
    command.arg(workspace.root.join("bench/peers/Cargo.toml"));
    command.arg("--target-dir").arg(folder);
    command
}

fn river(workspace: &Workspace, folder: &Path) -> Command {
    go(workspace, folder, "bench/peers/river", "go")
}

fn watermill(workspace: &Workspace, folder: &Path) -> Command {
    go(workspace, folder, "bench/peers/watermill", "watermill")
}

fn go(workspace: &Workspace, folder: &Path, module: &str, name: &str) -> Command {
    let mut command = Command::new("go");
    command.current_dir(workspace.root.join(module));
    let program = folder.join(format!("release/sagabus-bench-peers-{name}"));
    command.args(["build", "-o"]).arg(program).arg(".");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_built_that_no_row_needs() {
        let workspace = Workspace {
            root: PathBuf::from("/nowhere"),
        };
        let folder = build(&workspace, "postgres\nrabbitmq\n").unwrap();
        assert!(folder.ends_with("peers/release"), "{}", folder.display());
    }

    #[test]
    fn each_program_lands_where_the_bench_looks() {
        let workspace = Workspace {
            root: PathBuf::from("/nowhere"),
        };
        let folder = Path::new("/target/peers");
        let shown = |peer: &Peer| process::show(&(peer.build)(&workspace, folder));
        assert!(shown(&PEERS[0]).contains("--target-dir /target/peers"));
        assert!(shown(&PEERS[1]).contains("/target/peers/release/sagabus-bench-peers-go"));
        assert!(shown(&PEERS[2]).contains("/release/sagabus-bench-peers-watermill"));
    }
}
