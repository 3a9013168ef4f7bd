//! Runs other programs: captured, logged with a heartbeat, or streamed line by line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::fail::{Doing, Result, fail};
use crate::interrupt::{self, Group};
use crate::say;

/// Between two looks at a child: short against anything a person waits for.
const POLL: Duration = Duration::from_millis(50);
/// A logged command says that it is alive this often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// An interrupted child may clean up for this long before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long output may still arrive after a child has ended, from grandchildren that hold its
/// pipe; these are ended then.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a short command and returns its standard output; fails with its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .doing(format!("run `{shown}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    fail(format!(
        "`{shown}` ended with {}: {}",
        output.status,
        stderr.trim()
    ))
}

/// Whether a short command can be run and ends well; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command with its output appended to `log`, saying every 10 s what it does.
///
/// # Errors
/// Fails with the last lines of the log when the command does not end well.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let shown = show(command);
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .doing(format!("write {}", log.display()))?;
    let err = out.try_clone().doing("share the log")?;
    let (mut child, group) = spawn(command.stdout(out).stderr(err), &shown)?;
    let started = Instant::now();
    let mut said = started;
    let status = wait(&mut child, &group, || {
        if said.elapsed() >= HEARTBEAT {
            said = Instant::now();
            let last = tail(log, 1);
            say::detail(format!(
                "... {} {}",
                say::time(started.elapsed()),
                last.trim()
            ));
        }
    })?;
    interrupt::check()?;
    if status.success() {
        return Ok(());
    }
    fail(format!(
        "`{shown}` ended with {status}; the end of its output:\n{}",
        tail(log, 20)
    ))
}

/// Runs a command, passes each line of its standard output on, and hands it to `on_line` too.
/// What the command leaves running in its process group is ended with it.
pub(crate) fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let shown = show(command);
    let (mut child, group) = spawn(command.stdout(Stdio::piped()), &shown)?;
    let Some(stdout) = child.stdout.take() else {
        return fail(format!("`{shown}` has no output pipe"));
    };
    let lines = read_lines(stdout);
    let mut pass_on = |line: String| {
        say::result(format_args!("{line}"));
        on_line(&line);
    };
    let status = wait(&mut child, &group, || {
        while let Ok(line) = lines.try_recv() {
            pass_on(line);
        }
    })?;
    drain(&lines, &group, pass_on);
    interrupt::check()?;
    Ok(status)
}

/// Runs a command with our own output; what it leaves running in its group is ended with it.
pub(crate) fn inherit(command: &mut Command) -> Result<ExitStatus> {
    let shown = show(command);
    let (mut child, group) = spawn(command, &shown)?;
    let status = wait(&mut child, &group, || {})?;
    group.kill();
    interrupt::check()?;
    Ok(status)
}

/// The last `count` lines of a file, for error messages.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let mut bytes = Vec::new();
    // An unreadable log shows as an empty one: the caller's own error says what failed.
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A command line as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn spawn(command: &mut Command, shown: &str) -> Result<(Child, Group)> {
    interrupt::check()?;
    let child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .doing(format!("run `{shown}`"))?;
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match leader {
        Some(leader) => Ok((child, Group::watch(leader))),
        None => fail(format!("`{shown}` has no process id")),
    }
}

fn wait(child: &mut Child, group: &Group, mut idle: impl FnMut()) -> Result<ExitStatus> {
    let mut interrupted_at = None;
    loop {
        idle();
        if let Some(status) = child.try_wait().doing("wait for a child process")? {
            return Ok(status);
        }
        if interrupt::asked() {
            let since = interrupted_at.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                group.kill();
            }
        }
        std::thread::sleep(POLL);
    }
}

fn read_lines(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(&mut pipe);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line);
            if sender
                .send(text.trim_end_matches(['\n', '\r']).to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Takes what is still in the pipe, then ends the rest of the group.
fn drain(lines: &Receiver<String>, group: &Group, mut pass_on: impl FnMut(String)) {
    let end = Instant::now() + DRAIN;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => pass_on(line),
            Err(RecvTimeoutError::Disconnected) => break group.kill(),
            Err(RecvTimeoutError::Timeout) => {
                say::detail("processes were left behind with the output open; ending them");
                break group.kill();
            }
        }
    }
}

/// A command with its environment as words for a shell.
pub(crate) fn quoted(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_str()?, value?.to_str()?);
        Some(word(&format!("{name}={value}")))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|one| word(&one.to_string_lossy()));
    let all: Vec<String> = ["env".to_owned(), "-i".to_owned()]
        .into_iter()
        .chain(variables)
        .chain(words)
        .collect();
    all.join(" ")
}

/// A word for a shell.
pub(crate) fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failing_command_says_its_error_output() {
        let error = capture(&mut shell("echo broken >&2; exit 3")).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        assert_eq!(capture(&mut shell("echo fine")).unwrap(), "fine\n");
    }

    #[test]
    fn lines_are_streamed_and_leftover_children_do_not_block() {
        let mut seen = Vec::new();
        let started = Instant::now();
        let status = stream(&mut shell("echo one; sleep 600 & echo two"), |line| {
            seen.push(line.to_owned());
        });
        assert!(status.unwrap().success());
        assert_eq!(seen, ["one", "two"]);
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_failing_logged_command_shows_the_end_of_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        let error = logged(&mut shell("echo first; echo last; exit 1"), &log).unwrap_err();
        std::fs::remove_file(&log).unwrap();
        assert!(error.to_string().ends_with("first\nlast"), "{error}");
    }
}
