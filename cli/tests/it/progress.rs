//! What is said while something takes long: lines for files and programs, a bar on a terminal.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use sagabus_core::admin::StoreAdmin;

use crate::scene::{Scene, program};
use crate::terminal::terminal;

/// Retries forty in a bit more than a second.
const RETRY: [&str; 6] = ["dead-letters", "retry", "--all", "--rate", "25", "--yes"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_terminal_gets_lines() {
    let (scene, _) = Scene::with_failures(40).await;
    let ran = scene.run(&RETRY);
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = ran.err.lines().next().unwrap();
    assert!(
        line.starts_with("retried ") && line.ends_with(" of 40, 0 failed again"),
        "{ran:?}"
    );
    let end = "\nretried 40 dead letters (operation 1)\n";
    assert!(ran.out.ends_with(end), "{ran:?}");
}

/// Runs the program with standard error on a terminal, and returns all that it shows there.
fn on_terminal(scene: &Scene, term: &str, arguments: &[&str]) -> String {
    let (terminal, there) = terminal();
    let file = scene.file();
    let mut running = program(&[&["--store", file.to_str().unwrap()], arguments].concat())
        .env("TERM", term)
        .stdout(Stdio::null())
        .stderr(Stdio::from(there))
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    // Once nobody has the other end, reading fails: all that there was has been read by then.
    let _ = File::from(terminal).read_to_end(&mut shown);
    assert!(running.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_a_bar_without_colours_that_is_gone_at_the_end() {
    let (scene, store) = Scene::with_failures(40).await;
    let shown = on_terminal(&scene, "xterm-256color", &RETRY);
    assert!(shown.contains("retried ["), "{shown:?}");
    assert!(shown.contains("of 40"), "{shown:?}");
    assert!(shown.contains("0 failed again"), "{shown:?}");
    assert!(!shown.contains('\n'), "one line, drawn anew: {shown:?}");
    assert!(shown.ends_with("\r\u{1b}[2K"), "and cleared: {shown:?}");
    let colours = shown.split("\u{1b}[").skip(1).filter(|code| {
        let end = code.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| code[end..].starts_with('m'))
    });
    assert_eq!(colours.count(), 0, "{shown:?}");
    assert_eq!(store.counts().await.unwrap().dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_cannot_move_its_cursor_gets_lines() {
    let (scene, _) = Scene::with_failures(40).await;
    let shown = on_terminal(&scene, "dumb", &RETRY);
    assert!(shown.contains(" of 40, 0 failed again"), "{shown:?}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_not_disturbed_by_a_bar() {
    let (scene, _) = Scene::with_failures(40).await;
    let shown = on_terminal(&scene, "xterm", &[&RETRY[..], &["--json"]].concat());
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_for_long_turns_on_a_terminal() {
    let (scene, _) = Scene::with_failures(3).await;
    let shown = on_terminal(&scene, "xterm", &["accounts"]);
    let is_gone = shown.is_empty() || shown.ends_with("\r\u{1b}[2K");
    assert!(is_gone, "{shown:?}");
}
