//! Things that one file owns: starting tasks, and reading the clock.
//!
//! Clippy's `disallowed-methods` says the same for calls that it resolves; this guard also sees
//! types, code behind features that are off, and silenced lints.

use super::finding::{Allowed, Finding, allows};
use super::imports::used_paths;
use super::source::Source;

/// Paths that only one file may use.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Full paths; what is below them is meant too.
    paths: &'static [&'static str],
    owner: &'static str,
    remedy: &'static str,
}

/// Every task has an owner that can stop it and wait for it.
pub(crate) const SPAWN: Rule = Rule {
    paths: &[
        "tokio::spawn",
        "tokio::task::spawn",
        "tokio::task::spawn_blocking",
        "tokio::task::spawn_local",
        "tokio::task::JoinSet",
        "tokio::task::Builder",
        "tokio::runtime::Handle::current",
        "tokio_util::task::TaskTracker",
        "tokio_util::task::task_tracker::TaskTracker",
        "std::thread::spawn",
        "std::thread::Builder",
    ],
    owner: "bus-core/src/lifecycle.rs",
    remedy: "start it through `Lifecycle`, which stops it and waits for it",
};

/// What decides anything is the database's time; the process's time can be paused by tests.
pub(crate) const CLOCK: Rule = Rule {
    paths: &[
        "std::time::SystemTime::now",
        "std::time::Instant::now",
        "chrono::Utc::now",
        "chrono::Local::now",
        "time::OffsetDateTime::now_utc",
        "time::OffsetDateTime::now_local",
    ],
    owner: "bus-core/src/clock.rs",
    remedy: "use `tokio::time::Instant`, the database's time, or what clock.rs offers",
};

/// Code that is no part of the engine.
const ALLOWED: &[Allowed] = &[
    Allowed {
        path: "bench/",
        why: "measures real time and runs reference programs",
    },
    Allowed {
        path: "chaos/",
        why: "runs processes in real time",
    },
    Allowed {
        path: "testkit/",
        why: "plays brokers, crashes and slow handlers",
    },
    Allowed {
        path: "examples/",
        why: "a user's own program",
    },
    Allowed {
        path: "xtask/",
        why: "blocking developer commands",
    },
];

/// Finds uses of the rule's paths outside the file that owns them.
pub(crate) fn look(rule: &Rule, source: &Source) -> Vec<Finding> {
    if source.path == rule.owner || allows(ALLOWED, &source.path) {
        return Vec::new();
    }
    let used = used_paths(source).into_iter();
    used.filter(|used| !source.is_test(used.at))
        .filter(|used| rule.paths.iter().any(|path| is_or_below(&used.path, path)))
        .map(|used| {
            let fact = format!("`{}` outside {}", used.path, rule.owner);
            Finding::at(source, used.at, fact, rule.remedy)
        })
        .collect()
}

fn is_or_below(used: &str, path: &str) -> bool {
    used.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(rule: &Rule, path: &str, text: &str) -> Vec<String> {
        look(rule, &Source::of(path, text))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn tasks_and_threads_outside_their_owner_are_found() {
        let samples = [
            "fn f() { tokio::spawn(x); }",
            "use tokio::task; fn f() { task::spawn_blocking(x); }",
            "use std::thread; fn f() { thread::spawn(x); }",
            "use tokio::task::JoinSet;",
            "fn f() { let s = tokio::task::JoinSet::new(); }",
        ];
        for text in samples {
            let found = facts(&SPAWN, "outbox/src/relay.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].starts_with("outbox/src/relay.rs:1: `"),
                "{}",
                found[0]
            );
            assert!(found[0].contains("through `Lifecycle`"), "{}", found[0]);
            assert_eq!(facts(&SPAWN, "bus-core/src/lifecycle.rs", text), [""; 0]);
            assert_eq!(facts(&SPAWN, "tests/it/crash.rs", text), [""; 0]);
        }
        let fine = "fn f(lifecycle: &Lifecycle) { lifecycle.spawn(x); Command::new(y).spawn(); }\n\
                    #[cfg(test)] mod tests { fn g() { tokio::spawn(x); } }";
        assert_eq!(facts(&SPAWN, "outbox/src/relay.rs", fine), [""; 0]);
    }

    #[test]
    fn clocks_outside_their_owner_are_found() {
        let samples = [
            "use std::time::{Duration, Instant}; fn f() { Instant::now(); }",
            "fn f() { let now = x.unwrap_or_else(std::time::SystemTime::now); }",
        ];
        for text in samples {
            assert_eq!(facts(&CLOCK, "saga/src/timer.rs", text).len(), 1, "{text}");
            assert_eq!(facts(&CLOCK, "bus-core/src/clock.rs", text), [""; 0]);
            assert_eq!(facts(&CLOCK, "bench/src/main.rs", text), [""; 0]);
        }
        let fine = "use tokio::time::Instant; fn f() { Instant::now(); }";
        assert_eq!(facts(&CLOCK, "saga/src/timer.rs", fine), [""; 0]);
    }
}
