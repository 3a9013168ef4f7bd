//! `cargo xtask mutants`: small mistakes made in the engine by cargo-mutants, and whether a test
//! notices each of them.
//!
//! It works on a checkout of its own, so that nobody's files change, and writes down how each
//! mutant ended: what was tried before is not tried again, however the run before this one ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use self::found::{ENDS, End, Record, file_of};
use self::parts::{Judge, PARTS, Part, Round, Spared};
use crate::fail::{Doing, Result, fail};
use crate::workspace::Workspace;
use crate::{process, say};

mod explained;
mod found;
mod parts;

/// Ends a run of tests with the first that fails: a mutant that stops the engine would else have
/// each of hundreds wait for as long as it has patience. The option is an unstable one of the
/// harness, so it is opened for what runs, and not for what is built.
const FAIL_FAST: &[&str] = &["-Zunstable-options", "--fail-fast"];
/// Tests that run at once: most of them wait for time to pass.
const TESTS_AT_ONCE: &[&str] = &["--test-threads", "8"];
const RUNNER: &str = "--config=target.'cfg(all())'.runner=['env', 'RUSTC_BOOTSTRAP=1']";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// These parts only: retries, recurring, groups, engine, memory, sqlite, saga, watermark
    #[arg(long, value_name = "PART")]
    part: Vec<String>,
    /// Files whose path has this in it only
    #[arg(long, value_name = "TEXT")]
    file: Vec<String>,
    /// The k-th of n shares of them, counted from 1
    #[arg(long, value_name = "K/N", value_parser = share)]
    shard: Option<(usize, usize)>,
    /// Try again what no test noticed before
    #[arg(long)]
    again: bool,
    /// Show what is known and try nothing
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let parts = chosen(&arguments.part)?;
    let workspace = Workspace::find()?;
    if !process::succeeds(workspace.cargo().args(["mutants", "--version"])) {
        return fail(
            "cargo-mutants is not installed; `cargo install cargo-mutants --locked` does that",
        );
    }
    let place = Place::make(&workspace)?;
    let mut all = Vec::new();
    for part in parts {
        let mut names = place.names(part)?;
        let is_wanted = |name: &String| {
            let file = file_of(name);
            arguments.file.is_empty() || arguments.file.iter().any(|text| file.contains(text))
        };
        names.retain(is_wanted);
        if !arguments.list {
            place.test(part, &names, arguments)?;
        }
        all.extend(names);
    }
    let reasons = explained::reasons(&all, &place.tree);
    found::show(&all, &place.record()?, &reasons);
    Ok(ExitCode::SUCCESS)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Part>> {
    let is_known = |name: &&String| PARTS.iter().any(|part| part.name == **name);
    if let Some(unknown) = only.iter().find(|name| !is_known(name)) {
        return fail(format!(
            "there is no part `{unknown}`; see `cargo xtask mutants --help`"
        ));
    }
    let wanted = |part: &&Part| only.is_empty() || only.iter().any(|name| name == part.name);
    Ok(PARTS.iter().filter(wanted).collect())
}

fn share(text: &str) -> std::result::Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(k, n)| {
        let (k, n) = (k.parse().ok()?, n.parse().ok()?);
        (1 <= k && k <= n).then_some((k, n))
    });
    parsed.ok_or_else(|| "a share is like 2/8: the second of eight".to_owned())
}

/// Which of them are in a share: every n-th, so that each share has some of each file.
fn in_share(names: &[String], shard: Option<(usize, usize)>) -> Vec<String> {
    let (k, n) = shard.unwrap_or((1, 1));
    names.iter().skip(k - 1).step_by(n).cloned().collect()
}

/// Where mutants are made and judged.
struct Place {
    /// A checkout of what is committed.
    tree: PathBuf,
    /// Everything else: what is built, what cargo-mutants says, and the record.
    scratch: PathBuf,
    workspace: Workspace,
}

impl Place {
    fn make(workspace: &Workspace) -> Result<Self> {
        let scratch = workspace.target().join("mutants");
        fs::create_dir_all(&scratch).doing(format!("make {}", scratch.display()))?;
        let place = Self {
            tree: scratch.join("tree"),
            scratch,
            workspace: workspace.clone(),
        };
        place.check_out()?;
        Ok(place)
    }

    /// Brings the checkout to what is committed here. What did not change keeps its times, so that
    /// it is not built again.
    fn check_out(&self) -> Result<()> {
        let root = &self.workspace.root;
        let commit = process::capture(git(root).args(["rev-parse", "HEAD"]))?;
        if !self.tree.join(".git").exists() {
            let mut clone = git(root);
            clone.args(["clone", "--quiet", "--shared", "--no-checkout", "."]);
            process::capture(clone.arg(&self.tree))?;
        }
        let mut checkout = git(&self.tree);
        checkout.args(["checkout", "--quiet", "--force", "--detach", commit.trim()]);
        process::capture(&mut checkout)?;
        let changed = process::capture(git(root).args(["status", "--porcelain"]))?;
        if !changed.is_empty() {
            say::detail("what is not committed is left out");
        }
        Ok(())
    }

    fn command(&self, part: &Part) -> Command {
        let mut command = self.workspace.cargo();
        command.current_dir(&self.tree);
        command.args([
            "mutants",
            "--package",
            part.judge.package,
            "--colors",
            "never",
        ]);
        for file in part.files {
            command.args(["--file", file]);
        }
        command
    }

    /// Names every mutant of a part.
    fn names(&self, part: &Part) -> Result<Vec<String>> {
        let said = process::capture(self.command(part).arg("--list"))?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Tries those of a share that were not tried before.
    fn test(&self, part: &Part, names: &[String], arguments: &Arguments) -> Result<()> {
        self.keep(part.judge)?;
        let record = self.record()?;
        let reasons = explained::reasons(names, &self.tree);
        let is_open = |name: &String| match record.get(name) {
            None => true,
            Some(End::Missed | End::Timeout) => arguments.again && !reasons.contains_key(name),
            Some(End::Caught | End::Unviable) => false,
        };
        let mut open = in_share(names, arguments.shard);
        open.retain(is_open);
        for round in part.judge.rounds {
            let (part_name, count) = (part.name, open.len());
            say::step(format!(
                "{part_name}, {}: {count} mutants to try",
                round.name
            ));
            if open.is_empty() {
                return Ok(());
            }
            self.prepare(round)?;
            let ended = process::inherit(&mut self.trial(part, round, &open));
            let found = self.keep(part.judge)?;
            match ended?.code() {
                // Some were missed, or took too long: that is what is asked for.
                Some(0 | 2 | 3) => {}
                _ => return fail("cargo-mutants could not do its work; see above"),
            }
            open.retain(|name| found.get(name) == Some(&End::Missed));
        }
        Ok(())
    }

    /// Leaves out in the checkout what a round need not build.
    fn prepare(&self, round: &Round) -> Result<()> {
        // As it is committed, whatever the round before it left out.
        process::capture(git(&self.tree).args(["checkout", "--quiet", "--force"]))?;
        let Some(spared) = &round.spared else {
            return Ok(());
        };
        let path = self.tree.join(spared.manifest);
        let text = fs::read_to_string(&path).doing(format!("read {}", path.display()))?;
        let Some(text) = without(&text, spared) else {
            let (manifest, line) = (spared.manifest, spared.line);
            return fail(format!("{manifest} has no line `{line}` any more"));
        };
        fs::write(&path, text).doing(format!("write {}", path.display()))
    }

    /// Makes the command that tries mutants by the tests of a round.
    fn trial(&self, part: &Part, round: &Round, open: &[String]) -> Command {
        let judge = part.judge;
        let mut command = self.command(part);
        command.arg("--in-place");
        command.arg("--output").arg(self.said(round));
        command.args(["--timeout", &round.seconds_max.to_string()]);
        for name in open {
            command.arg(format!("--re=^{}$", literally(name)));
        }
        for feature in judge.features {
            command.args(["--features", feature]);
        }
        command.arg(format!("--cargo-arg={RUNNER}"));
        // For building, too, which leaves out what follows `--`.
        for target in round.targets {
            command.arg(format!("--cargo-arg={target}"));
        }
        command
            .args(["--", "--"])
            .args(FAIL_FAST)
            .args(TESTS_AT_ONCE);
        for skipped in round.skipped {
            command.args(["--skip", skipped]);
        }
        command.env("CARGO_TARGET_DIR", self.scratch.join("build"));
        // One function changes at a time.
        command.env("CARGO_INCREMENTAL", "1");
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // Judged by what needs nothing but this machine.
        command.env_remove("SAGABUS_POSTGRES_URL");
        command
    }

    /// Where cargo-mutants says what a round found.
    fn said(&self, round: &Round) -> PathBuf {
        self.scratch.join(round.name)
    }

    /// Adds what cargo-mutants has written down, also before it was interrupted, to the record, and
    /// returns it. What a round missed that is not the last one is still to be judged, and only
    /// returned.
    fn keep(&self, judge: &Judge) -> Result<Record> {
        let mut record = self.record()?;
        let mut found = Record::new();
        let last = judge.rounds.len().saturating_sub(1);
        for (n, round) in judge.rounds.iter().enumerate() {
            let folder = self.said(round);
            for (end, list) in ENDS {
                let list = folder.join("mutants.out").join(format!("{list}.txt"));
                // There is none where nothing was tried yet.
                let said = fs::read_to_string(list).unwrap_or_default();
                let ends = said.lines().map(|name| (name.to_owned(), end));
                found.extend(ends.clone());
                if end != End::Missed || n == last {
                    record.extend(ends);
                }
            }
        }
        let path = self.path();
        fs::write(&path, found::write(&record)).doing(format!("write {}", path.display()))?;
        // Else it would be told again, after a later run has found something else.
        for round in judge.rounds {
            let folder = self.said(round);
            if folder.exists() {
                fs::remove_dir_all(&folder).doing(format!("delete {}", folder.display()))?;
            }
        }
        Ok(found)
    }

    fn path(&self) -> PathBuf {
        self.scratch.join("record.txt")
    }

    fn record(&self) -> Result<Record> {
        match fs::read_to_string(self.path()) {
            Ok(text) => found::read(&text),
            Err(_) => Ok(Record::new()), // Nothing was tried yet.
        }
    }
}

/// Returns a manifest as it stands while a round lasts; `None` where it has no such line.
fn without(manifest: &str, spared: &Spared) -> Option<String> {
    let mut is_there = false;
    let lines = manifest.lines().map(|line| {
        let is_it = line == spared.line;
        is_there |= is_it;
        if is_it { spared.instead } else { line }
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    is_there.then_some(text)
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder);
    command
}

/// A regular expression for a text as it stands.
fn literally(text: &str) -> String {
    let mut all = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        // `\<` and `\>` would be the ends of words.
        if r"\.+*?()|[]{}^$".contains(c) {
            all.push('\\');
        }
        all.push(c);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn shares_have_every_mutant_once() {
        let all = names(&["a", "b", "c", "d", "e"]);
        assert_eq!(in_share(&all, None), all);
        assert_eq!(in_share(&all, share("1/2").ok()), ["a", "c", "e"]);
        assert_eq!(in_share(&all, share("2/2").ok()), ["b", "d"]);
        for wrong in ["0/2", "3/2", "2", "a/b", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_matched_as_it_stands() {
        let name = "bus-core/src/a.rs:1:2: replace A::b() -> Option<C> with None";
        let expected = r"bus-core/src/a\.rs:1:2: replace A::b\(\) -> Option<C> with None";
        assert_eq!(literally(name), expected);
    }

    #[test]
    fn files_of_parts_are_there_and_what_they_spare_is() {
        let workspace = Workspace::find().unwrap();
        let rounds = PARTS.iter().flat_map(|part| part.judge.rounds);
        for spared in rounds.filter_map(|round| round.spared.as_ref()) {
            let manifest = fs::read_to_string(workspace.root.join(spared.manifest)).unwrap();
            let lean = without(&manifest, spared).expect("the line is there");
            assert!(lean.contains(spared.instead) && !lean.contains(spared.line));
            assert_eq!(without(&lean, spared), None);
        }
        for file in PARTS.iter().flat_map(|part| part.files) {
            let folder = file.split('*').next().unwrap_or(file);
            assert!(workspace.root.join(folder).exists(), "{file}");
        }
    }
}
