//! Instructions per message of the hot path in memory, counted by valgrind: unlike a rate, they are
//! the same on a busy machine, so a change of a few per cent is a change of the code.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use crate::guard::Tally;
use crate::machine::said_by;
use crate::paths::Path;

/// The recorded table, below the root of the work tree.
const RECORDED: &str = "bench/instructions.json";
/// How far a count may be from what is recorded.
const APART_MAX: f64 = 0.02;
/// Messages of the shorter run: behind them everything is warm.
const FEW: u64 = 2_000;
/// Messages of the longer run.
const MANY: u64 = 6_000;

/// Counts, and what they were counted with: other compilers and C libraries make others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    compiler: String,
    c_library: String,
    /// Instructions per message.
    paths: BTreeMap<Path, u64>,
}

/// What a count is beside the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Kept,
    More,
    Fewer,
    New,
}

impl Beside {
    fn of(now: u64, recorded: Option<u64>) -> Self {
        let Some(recorded) = recorded else {
            return Self::New;
        };
        let apart = now as f64 / recorded as f64 - 1.0;
        match apart {
            apart if apart > APART_MAX => Self::More,
            apart if apart < -APART_MAX => Self::Fewer,
            _ => Self::Kept,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::More => "MORE",
            Self::Fewer => "fewer: `cargo xtask bench instructions --record`",
            Self::New => "not recorded",
        }
    }
}

/// Counts every path, prints them beside what is recorded, and records them where that is asked.
pub(crate) fn run(record: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    if said_by("valgrind", &["--version"]).is_none() {
        println!("instructions: not run: valgrind is missing (a package of that name)");
        tally.skipped += Path::ALL.len();
        return Ok(tally);
    }
    let now = counted()?;
    let recorded = read()?;
    let is_comparable = recorded.compiler == now.compiler && recorded.c_library == now.c_library;
    println!("| in memory | instructions per message | recorded | |\n|---|---|---|---|");
    for (path, count) in &now.paths {
        let before = recorded.paths.get(path).copied();
        let beside = Beside::of(*count, before);
        match beside {
            _ if !is_comparable || beside == Beside::New => tally.skipped += 1,
            Beside::More if !record => tally.missed += 1,
            _ => tally.kept += 1,
        }
        let shown = before.map_or_else(String::new, |before| before.to_string());
        let word = if is_comparable {
            beside.word()
        } else {
            "not judged"
        };
        println!("| {} | {count} | {shown} | {word} |", name(*path));
    }
    if !is_comparable {
        let (was, is) = (&recorded, &now);
        println!(
            "recorded with {}, {}; these with {}, {}",
            was.compiler, was.c_library, is.compiler, is.c_library
        );
    }
    if record {
        let text = serde_json::to_string_pretty(&now)? + "\n";
        fs::write(RECORDED, text).with_context(|| format!("cannot write `{RECORDED}`"))?;
        println!("recorded: {RECORDED}");
    }
    Ok(tally)
}

fn read() -> Result<Counts> {
    let text = fs::read_to_string(RECORDED);
    let text = text.with_context(|| format!("cannot read `{RECORDED}`; call this at the root"))?;
    serde_json::from_str(&text).with_context(|| format!("`{RECORDED}` is no table of counts"))
}

fn name(path: Path) -> String {
    let value = path.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn counted() -> Result<Counts> {
    let said = |program, argument| said_by(program, &[argument]).unwrap_or_default();
    let mut counts = Counts {
        compiler: said("rustc", "--version"),
        c_library: said("getconf", "GNU_LIBC_VERSION"),
        ..Counts::default()
    };
    for path in Path::ALL {
        let (few, many) = (least(path, FEW)?, least(path, MANY)?);
        let each = many.saturating_sub(few) / (MANY - FEW);
        counts.paths.insert(path, each);
    }
    Ok(counts)
}

/// Counts as often as the path says, and returns the least.
fn least(path: Path, messages: u64) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..path.times() {
        least = least.min(collected(path, messages)?);
    }
    Ok(least)
}

/// Has valgrind count what this program does for so many messages.
fn collected(path: Path, messages: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    if path.is_marked() {
        command.arg("--toggle-collect=*counted_*");
    }
    command.arg(std::env::current_exe()?);
    command.args(["do-path", &name(path), &messages.to_string()]);
    let output = command.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} under valgrind: {}", name(path), said.trim());
    }
    in_words(&said).with_context(|| format!("valgrind counted nothing: {}", said.trim()))
}

/// Finds the count in what valgrind says: `==12== Collected : 12345`.
fn in_words(said: &str) -> Option<u64> {
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))?;
    count.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(in_words(said), Some(123_456));
        assert_eq!(in_words("==7== Collected :"), None);
        assert_eq!(in_words("valgrind: no such file"), None);
    }

    #[test]
    fn two_per_cent_more_is_kept_and_three_is_not() {
        assert_eq!(Beside::of(1019, Some(1000)), Beside::Kept);
        assert_eq!(Beside::of(1030, Some(1000)), Beside::More);
        assert_eq!(Beside::of(970, Some(1000)), Beside::Fewer);
        assert_eq!(Beside::of(970, None), Beside::New);
    }

    #[test]
    fn every_path_is_recorded() {
        let text = include_str!("../instructions.json");
        let recorded: Counts = serde_json::from_str(text).unwrap();
        let all: Vec<Path> = recorded.paths.keys().copied().collect();
        assert_eq!(all, Path::ALL);
    }

    #[tokio::test]
    async fn every_path_does_what_it_says() {
        for path in Path::ALL {
            crate::paths::run(path, 1_000).await.unwrap();
        }
    }
}
