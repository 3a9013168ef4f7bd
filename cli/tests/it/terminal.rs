//! Somebody who sits at a terminal: asked before a change, and shown colours where they are wanted.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sagabus_core::admin::StoreAdmin;

use crate::scene::{Scene, program};

/// A terminal: its own end, and that of the programs on it.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let there = open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&there, size).unwrap();
    (terminal, there)
}

/// Runs the program for somebody who sits at a terminal and types a line; returns the code and all
/// that is seen there, what is typed included.
fn typed(
    scene: &Scene,
    environment: &[(&str, &str)],
    arguments: &[&str],
    line: &str,
) -> (i32, String) {
    let (terminal, there) = terminal();
    let file = scene.file();
    let mut running = program(&[&["--store", file.to_str().unwrap()], arguments].concat())
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .envs(environment.iter().copied())
        .stdin(Stdio::from(there.try_clone().unwrap()))
        .stdout(Stdio::from(there.try_clone().unwrap()))
        .stderr(Stdio::from(there))
        .spawn()
        .unwrap();
    let mut terminal = File::from(terminal);
    terminal.write_all(line.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let _ = terminal.read_to_end(&mut seen); // It ends where nobody has the other end.
    let code = running.wait().unwrap().code().unwrap();
    (code, String::from_utf8(seen).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sits_at_a_terminal_is_asked_with_the_count_and_may_say_no() {
    let (scene, store) = Scene::with_failures(3).await;
    let discard = ["dead-letters", "discard", "--all"];
    for (line, code, left) in [("n\n", 2, 3), ("\n", 2, 3), ("yo\n", 2, 3), ("y\n", 0, 0)] {
        let (ended, seen) = typed(&scene, &[], &discard, line);
        assert!(seen.contains("discard 3 dead letters? [y/N] "), "{seen:?}");
        let said = match code {
            0 => "discarded 3 dead letters (operation 1)",
            _ => "nothing was changed [SB0305]",
        };
        assert!(seen.contains(said), "{line:?}: {seen:?}");
        assert_eq!(ended, code, "{line:?}: {seen:?}");
        assert_eq!(store.counts().await.unwrap().dead_letters, left, "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_that_want_them() {
    let (scene, _) = Scene::with_failures(1).await;
    for arguments in [
        &["--help"][..],
        &["frobnicate"],
        &["dead-letters", "--help"],
    ] {
        let (code, seen) = typed(&scene, &[], arguments, "");
        assert!(seen.contains("\u{1b}["), "{arguments:?}: {seen:?}");
        let (plain, seen) = typed(&scene, &[("NO_COLOR", "1")], arguments, "");
        assert!(!seen.contains('\u{1b}'), "{arguments:?}: {seen:?}");
        assert_eq!(code, plain);
    }
    for arguments in [
        &["status"][..],
        &["dead-letters", "show", "1"],
        &["outbox", "show", "9"],
    ] {
        let (_, seen) = typed(&scene, &[], arguments, "");
        assert!(!seen.contains('\u{1b}'), "{arguments:?}: {seen:?}");
    }
}
