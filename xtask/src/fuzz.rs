//! `cargo xtask fuzz`: libFuzzer on the stable toolchain around the targets in `fuzz/`.
//!
//! Coverage comes from LLVM's own pass, which stable rustc runs when it is told to; sanitizers,
//! which need nightly, are left out: no crate of ours has `unsafe`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Args;

use crate::fail::{Doing, Result, fail};
use crate::workspace::Workspace;
use crate::{process, say};

/// What the compiler counts for libFuzzer: edges, and what is compared with what.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";
/// No input may take longer.
const SECONDS_MAX: u64 = 1;
/// How often one that took longer is tried alone.
const TRIES: usize = 3;
/// No input may take more, the program itself included.
const MEBIBYTES_MAX: u32 = 256;
/// The longest input. What reads longer ones reads them in the same loops.
const BYTES_MAX: u32 = 8192;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The target; every one where none is named
    target: Option<String>,
    /// How often each target is called
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Keep what was found interesting: the smallest set that reaches as much, in `fuzz/corpus`
    #[arg(long)]
    keep: bool,
}

/// What one target was found to do.
struct Figures {
    executions: u64,
    peak_mebibytes: u64,
    kept: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let targets = targets(&workspace.root, arguments.target.as_deref())?;
    let place = Place::make(&workspace)?;
    let engine = build(&workspace, &place)?;
    say::result(format_args!(
        "| target | executions | peak memory, MiB | inputs kept |"
    ));
    say::result(format_args!("|---|---|---|---|"));
    for target in targets {
        let figures = place.fuzz(&engine, &target, arguments)?;
        say::result(format_args!(
            "| {target} | {} | {} | {} |",
            figures.executions, figures.peak_mebibytes, figures.kept
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The folders of the corpus are the targets; a test holds them together.
fn targets(root: &Path, wanted: Option<&str>) -> Result<Vec<String>> {
    let corpus = root.join("fuzz/corpus");
    let mut all = names(&corpus)?;
    all.sort();
    let Some(wanted) = wanted else { return Ok(all) };
    if all.iter().any(|one| one == wanted) {
        return Ok(vec![wanted.to_owned()]);
    }
    fail(format!(
        "there is no target `{wanted}`; there are: {}",
        all.join(", ")
    ))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let doing = format!("read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).doing(doing.clone())? {
        let name = entry.doing(doing.clone())?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Where things are while targets run.
struct Place {
    root: PathBuf,
    /// What is built and what is found, away from the work tree.
    scratch: PathBuf,
}

impl Place {
    fn make(workspace: &Workspace) -> Result<Self> {
        let scratch = workspace.target().join("fuzz");
        for folder in ["found", "corpus"] {
            let folder = scratch.join(folder);
            fs::create_dir_all(&folder).doing(format!("make {}", folder.display()))?;
        }
        Ok(Self {
            root: workspace.root.clone(),
            scratch,
        })
    }

    /// Calls a target so often; fails with the end of what was said where an input is bad.
    fn fuzz(&self, engine: &Path, target: &str, arguments: &Arguments) -> Result<Figures> {
        let log = self.scratch.join(format!("{target}.log"));
        let found = self.scratch.join("corpus").join(target);
        fs::create_dir_all(&found).doing(format!("make {}", found.display()))?;
        let kept = self.root.join("fuzz/corpus").join(target);
        let (mut executions, mut peak) = (0, 0);
        while executions < arguments.runs {
            let runs = arguments.runs - executions;
            say::detail(format!("{target}: {runs} calls"));
            // A log of an earlier run would be read for this one's.
            let _ = fs::remove_file(&log);
            let mut fuzzing = self.engine(engine, target);
            fuzzing.arg(format!("-runs={runs}"));
            fuzzing.arg("-print_final_stats=1").arg(&found).arg(&kept);
            let ended = process::logged(&mut fuzzing, &log);
            let said = fs::read_to_string(&log).doing(format!("read {}", log.display()))?;
            if let Err(error) = ended {
                match accused(&said) {
                    Some(input) if !self.is_slow(engine, target, input)? => {
                        say::detail("it is fast alone: the machine stood still");
                        fs::remove_file(input).doing(format!("delete {}", input.display()))?;
                    }
                    _ => return Err(error),
                }
            }
            executions += figure(&said, "stat::number_of_executed_units:")?;
            peak = peak.max(figure(&said, "stat::peak_rss_mb:")?);
        }
        if arguments.keep {
            self.keep(engine, target, &found, &kept, &log)?;
        }
        Ok(Figures {
            executions,
            peak_mebibytes: peak,
            kept: names(&kept)?.len(),
        })
    }

    /// Says whether an input takes too long each time that it is tried: the fuzzer goes by the
    /// clock, and others use this machine.
    fn is_slow(&self, engine: &Path, target: &str, input: &Path) -> Result<bool> {
        for _ in 0..TRIES {
            let started = Instant::now();
            process::capture(self.engine(engine, target).arg(input))?;
            if started.elapsed() < Duration::from_secs(SECONDS_MAX) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts the smallest set that reaches as much in the place of what was kept before.
    fn keep(
        &self,
        engine: &Path,
        target: &str,
        found: &Path,
        kept: &Path,
        log: &Path,
    ) -> Result<()> {
        let least = self.scratch.join("least").join(target);
        if least.exists() {
            fs::remove_dir_all(&least).doing(format!("delete {}", least.display()))?;
        }
        fs::create_dir_all(&least).doing(format!("make {}", least.display()))?;
        let mut merging = self.engine(engine, target);
        merging.arg("-merge=1").arg(&least).arg(kept).arg(found);
        process::logged(&mut merging, log)?;
        for name in names(kept)?.iter().filter(|name| is_made(name)) {
            fs::remove_file(kept.join(name)).doing(format!("delete {name}"))?;
        }
        for name in names(&least)? {
            fs::copy(least.join(&name), kept.join(&name)).doing(format!("keep {name}"))?;
        }
        Ok(())
    }

    fn engine(&self, engine: &Path, target: &str) -> Command {
        let mut command = Command::new(engine);
        command.env("SAGABUS_FUZZ_TARGET", target);
        command.arg(format!("-timeout={SECONDS_MAX}"));
        command.arg(format!("-rss_limit_mb={MEBIBYTES_MAX}"));
        command.arg(format!("-max_len={BYTES_MAX}"));
        let found = self.scratch.join("found").join(format!("{target}-"));
        command.arg(format!("-artifact_prefix={}", found.display()));
        command
    }
}

/// The fuzzer names inputs by their hashes; what people kept has a name that says what it is.
fn is_made(name: &str) -> bool {
    name.len() == 40 && name.chars().all(|c| c.is_ascii_hexdigit())
}

fn build(workspace: &Workspace, place: &Place) -> Result<PathBuf> {
    let shown = process::capture(Command::new("rustc").arg("-vV"))?;
    let host = shown.lines().find_map(|line| line.strip_prefix("host: "));
    let Some(host) = host else {
        return fail("`rustc -vV` does not say what it builds for");
    };
    let folder = place.scratch.join("build");
    let mut command = workspace.cargo();
    command.args([
        "build",
        "--release",
        "--manifest-path",
        "fuzz/engine/Cargo.toml",
    ]);
    // With a target named, build scripts and macros are built without the flags.
    command
        .args(["--target", host, "--target-dir"])
        .arg(&folder);
    let log = place.scratch.join("build.log");
    say::detail(format!("building the targets (log: {})", log.display()));
    process::logged(command.env("RUSTFLAGS", FLAGS), &log)?;
    Ok(folder.join(host).join("release/sagabus-fuzz-engine"))
}

/// The input of which the fuzzer said that it takes too long, if that is why it ended.
fn accused(said: &str) -> Option<&Path> {
    let mut lines = said.lines().rev();
    let path = lines
        .find_map(|line| line.split_once("Test unit written to "))?
        .1;
    path.contains("-timeout-").then(|| Path::new(path.trim()))
}

/// The number behind a word at the beginning of a line, the last time it stands there.
fn figure(said: &str, word: &str) -> Result<u64> {
    let mut lines = said.lines().rev();
    let number = lines.find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    match number {
        Some(number) => Ok(number),
        None => fail(format!("the fuzzer has not said `{word}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_a_missing_one_is_an_error() {
        let said = "INFO\nstat::number_of_executed_units: 1000001\nstat::peak_rss_mb:     61\n";
        assert_eq!(figure(said, "stat::peak_rss_mb:").unwrap(), 61);
        assert!(figure(said, "stat::nothing:").is_err());
    }

    #[test]
    fn only_an_input_that_took_too_long_is_tried_again() {
        let said = |kind: &str| {
            format!(
                "ALARM\nartifact_prefix='x-'; Test unit written to /found/cron-{kind}-14cf\nBase64: MA==\n"
            )
        };
        let slow = said("timeout");
        assert_eq!(accused(&slow), Some(Path::new("/found/cron-timeout-14cf")));
        assert_eq!(accused(&said("crash")), None);
        assert_eq!(accused("stat::peak_rss_mb: 61\n"), None);
    }

    #[test]
    fn only_what_the_fuzzer_named_is_replaced() {
        assert!(is_made("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
        assert!(!is_made("a-golden-message"));
    }
}
