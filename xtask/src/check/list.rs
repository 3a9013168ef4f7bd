//! Every check, in the order in which they run: those that take milliseconds first.

use std::fs;
use std::path::PathBuf;

use super::finding::Finding;
use super::source::Source;
use super::{directions, habits, owners, places, size, tools, unwraps, vocabulary};
use crate::fail::{Doing, Result};
use crate::workspace::Workspace;

/// One check.
pub(crate) struct Check {
    /// One word, for `--only`.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Tree) -> Result<Outcome>,
}

/// How a check ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// A guard found these.
    Found(Vec<Finding>),
    /// Another program found something and has printed it.
    Broken(String),
    /// It could not run here, for this reason.
    NotRun(String),
}

impl Outcome {
    /// Passed where nothing was found.
    pub(crate) fn of(found: Vec<Finding>) -> Self {
        if found.is_empty() {
            Self::Passed
        } else {
            Self::Found(found)
        }
    }
}

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "directions",
        what: "no leaf depends on a leaf, each driver has one package",
        run: |tree| Ok(Outcome::of(directions::look(&tree.workspace)?)),
    },
    Check {
        name: "vocabulary",
        what: "one word per concept in identifiers",
        run: |tree| Ok(tree.guard(vocabulary::look)),
    },
    Check {
        name: "spawn",
        what: "tasks and threads start in bus-core/src/lifecycle.rs only",
        run: |tree| Ok(tree.guard(|source| owners::look(&owners::SPAWN, source))),
    },
    Check {
        name: "clock",
        what: "the clock is read in bus-core/src/clock.rs only",
        run: |tree| Ok(tree.guard(|source| owners::look(&owners::CLOCK, source))),
    },
    Check {
        name: "unwrap",
        what: "no unwrap outside tests",
        run: |tree| Ok(tree.guard(unwraps::look)),
    },
    Check {
        name: "tests",
        what: "no test or example is switched off, no test expects a panic or sleeps",
        run: |tree| Ok(tree.guard(habits::look)),
    },
    Check {
        name: "size",
        what: "files of at most 500 lines, functions of at most 70",
        run: |tree| Ok(tree.guard(size::look)),
    },
    Check {
        name: "places",
        what: "no path of one machine and no package mirror in any file",
        run: |tree| Ok(Outcome::of(tree.look_at_texts(places::look)?)),
    },
    Check {
        name: "scripts",
        what: "shell scripts parse",
        run: tools::scripts,
    },
    Check {
        name: "fmt",
        what: "cargo fmt --check",
        run: tools::fmt,
    },
    Check {
        name: "defaults",
        what: "default features need no CMake, OpenSSL or protoc",
        run: tools::defaults,
    },
    Check {
        name: "deny",
        what: "cargo deny: bans, licences, sources",
        run: tools::deny,
    },
    Check {
        name: "clippy",
        what: "clippy on everything, warnings denied",
        run: tools::clippy,
    },
    Check {
        name: "docs",
        what: "rustdoc, warnings denied",
        run: tools::docs,
    },
];

/// The work tree, read once.
pub(crate) struct Tree {
    pub(crate) workspace: Workspace,
    /// Relative to the root.
    pub(crate) files: Vec<PathBuf>,
    sources: Vec<Source>,
}

impl Tree {
    /// Reads every Rust file that git knows or would know.
    pub(crate) fn read(workspace: Workspace) -> Result<Self> {
        let files = workspace.files()?;
        let mut sources = Vec::new();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        {
            let text = fs::read_to_string(workspace.root.join(file));
            let text = text.doing(format!("read {}", file.display()))?;
            sources.push(Source::of(&file.to_string_lossy(), &text));
        }
        mark_test_modules(&mut sources);
        Ok(Self {
            workspace,
            files,
            sources,
        })
    }

    fn guard(&self, look: impl Fn(&Source) -> Vec<Finding>) -> Outcome {
        Outcome::of(self.sources.iter().flat_map(look).collect())
    }

    fn look_at_texts(&self, look: impl Fn(&str, &str) -> Vec<Finding>) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        for file in &self.files {
            let bytes = fs::read(self.workspace.root.join(file));
            let bytes = bytes.doing(format!("read {}", file.display()))?;
            if !bytes.contains(&0) {
                found.extend(look(
                    &file.to_string_lossy(),
                    &String::from_utf8_lossy(&bytes),
                ));
            }
        }
        Ok(found)
    }
}

/// `#[cfg(test)] mod cases;` makes `cases.rs`, and all below `cases/`, test code.
fn mark_test_modules(sources: &mut [Source]) {
    let modules: Vec<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        let path = PathBuf::from(&source.path).with_extension("");
        if modules.iter().any(|module| path.starts_with(module)) {
            source.mark_as_test();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_single_words() {
        for (at, check) in CHECKS.iter().enumerate() {
            assert!(
                check.name.chars().all(|c| c.is_ascii_lowercase()),
                "{}",
                check.name
            );
            assert!(
                CHECKS[..at].iter().all(|other| other.name != check.name),
                "{}",
                check.name
            );
        }
    }

    #[test]
    fn test_modules_in_other_files_are_test_code() {
        let mut sources = [
            Source::of("a/src/lib.rs", "#[cfg(test)] mod cases; mod plain;"),
            Source::of("a/src/cases.rs", "fn x() {}"),
            Source::of("a/src/cases/more.rs", "fn x() {}"),
            Source::of("a/src/plain.rs", "fn x() {}"),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(
            sources[1..]
                .iter()
                .map(|s| s.is_test(0))
                .collect::<Vec<_>>(),
            [true, true, false]
        );
    }
}
