//! What is tried: files, and the tests that judge them.

/// The tests that mutants of some files are judged by.
pub(super) struct Judge {
    pub(super) package: &'static str,
    /// One after the other: the next one judges what none before it noticed.
    pub(super) rounds: &'static [Round],
    pub(super) features: &'static [&'static str],
}

/// Tests that are built and run together.
pub(super) struct Round {
    pub(super) name: &'static str,
    /// What of the package is built and run, for `cargo test`.
    pub(super) targets: &'static [&'static str],
    /// What need not be built for these tests.
    pub(super) spared: Option<Spared>,
    /// Tests whose name has this judge nothing.
    pub(super) skipped: &'static [&'static str],
    /// Within this they end, on a busy machine: a mutant that takes longer hangs.
    pub(super) seconds_max: u32,
}

/// A line of a manifest that stands otherwise in the checkout while a round lasts.
pub(super) struct Spared {
    pub(super) manifest: &'static str,
    pub(super) line: &'static str,
    pub(super) instead: &'static str,
}

/// What a package says of itself, where no other package is built again for each mutant.
const UNITS: Round = Round {
    name: "units",
    targets: &["--lib"],
    spared: Some(Spared {
        manifest: "bus-core/Cargo.toml",
        line: "sagabus-testkit.workspace = true",
        // What tests of units have through it.
        instead: "tokio = { workspace = true, features = [\"full\", \"test-util\"] }",
    }),
    skipped: &[],
    // They take one, and 25 where three builds go on beside them.
    seconds_max: 90,
};
/// What hosts do, with the store in memory.
const BEHAVIOURS: Round = Round {
    name: "behaviours",
    targets: &["--test", "it"],
    spared: None,
    // The suites of the store and the transport run without a host, and what is sealed is of no
    // concern to these files.
    skipped: &["under_seal", "memory_store", "memory_transport"],
    seconds_max: 120,
};
/// What the store and the transport in memory do, also without a host.
const IN_MEMORY: Round = Round {
    name: "in_memory",
    skipped: &["under_seal"],
    ..BEHAVIOURS
};
const ALL: Round = Round {
    name: "all",
    targets: &["--lib", "--test", "it"],
    spared: None,
    skipped: &["sealed::"],
    seconds_max: 240,
};
const OWN: Round = Round {
    name: "own",
    targets: &["--lib"],
    spared: None,
    skipped: &[],
    seconds_max: 60,
};

const CORE: Judge = Judge {
    package: "sagabus-core",
    rounds: &[UNITS, BEHAVIOURS],
    features: &["faults"],
};
const MEMORY: Judge = Judge {
    rounds: &[IN_MEMORY],
    ..CORE
};
const SQLITE: Judge = Judge {
    package: "sagabus-outbox",
    rounds: &[ALL],
    features: &["sqlite"],
};
const SAGA: Judge = Judge {
    package: "sagabus-saga",
    rounds: &[ALL],
    features: &[],
};
const KAFKA: Judge = Judge {
    package: "sagabus-kafka",
    rounds: &[OWN],
    features: &[],
};

/// Files that are tried together.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) judge: &'static Judge,
    pub(super) files: &'static [&'static str],
}

pub(super) const PARTS: &[Part] = &[
    Part {
        name: "retries",
        judge: &CORE,
        files: &[
            "bus-core/src/retry.rs",
            "bus-core/src/attempt.rs",
            "bus-core/src/tries.rs",
            "bus-core/src/backoff.rs",
            "bus-core/src/care.rs",
        ],
    },
    Part {
        name: "recurring",
        judge: &CORE,
        files: &[
            "bus-core/src/recurrence.rs",
            "bus-core/src/schedule.rs",
            "bus-core/src/recurring.rs",
        ],
    },
    Part {
        name: "groups",
        judge: &CORE,
        files: &[
            "bus-core/src/lanes.rs",
            "bus-core/src/loader.rs",
            "bus-core/src/committer.rs",
            "bus-core/src/grouping.rs",
            "bus-core/src/relay.rs",
        ],
    },
    Part {
        name: "engine",
        judge: &CORE,
        files: &[
            "bus-core/src/receiver.rs",
            "bus-core/src/question.rs",
            "bus-core/src/merging.rs",
            "bus-core/src/handling.rs",
            "bus-core/src/failing.rs",
            "bus-core/src/settling.rs",
            "bus-core/src/claimer.rs",
        ],
    },
    Part {
        name: "memory",
        judge: &MEMORY,
        files: &["bus-core/src/memory/**/*.rs"],
    },
    Part {
        name: "sqlite",
        judge: &SQLITE,
        files: &["outbox/src/sqlite/*.rs", "outbox/src/found.rs"],
    },
    Part {
        name: "saga",
        judge: &SAGA,
        files: &[
            // What a unit arms and cancels: timers.
            "saga/src/effects.rs",
            "saga/src/machine/run.rs",
            "saga/src/machine/turn.rs",
            "saga/src/machine/steps.rs",
            "saga/src/handlers/run.rs",
        ],
    },
    Part {
        name: "watermark",
        judge: &KAFKA,
        files: &["bus-kafka/src/offsets.rs"],
    },
];
