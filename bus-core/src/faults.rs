//! Named crash points. Without the feature `faults` each is nothing at all.
//!
//! With it, the variable `SAGABUS_FAULT=after_commit:3:kill` makes the process kill itself
//! (SIGKILL) when it reaches that point for the third time, after it has said so in one line on
//! standard error: `fault after_commit 3 kill`. `:0:count` only counts. A test in the same process
//! uses `crash_at` instead.

/// A place on the way of a message where a process may die. The list is the walk of one message,
/// each interval between two hops once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A delivery or row is in hand, nothing has been done with it.
    Received,
    /// Decoded and in its lane, the loader has not been asked.
    Decoded,
    /// The loader has answered, the handler has not run.
    Loaded,
    /// The handler has returned, its unit is not with the committer.
    Handled,
    /// A group is formed, the store has not been called.
    BeforeCommit,
    /// The store has answered, nobody has been told.
    AfterCommit,
    /// The unit is committed, its delivery is not acked.
    BeforeAck,
    /// The ack is written.
    AfterAck,
    /// A failed attempt is about to be written as a row for later.
    BeforeTakeOver,
    /// It is written, the original is not acked.
    AfterTakeOver,
    /// A dead letter is about to be written.
    BeforeDeadLetter,
    /// It is written, the original is not acked.
    AfterDeadLetter,
    /// A handler's own transaction has run its last user statement.
    BeforeTxCommit,
    /// It has committed, nobody has been told.
    AfterTxCommit,
    /// Rows are claimed, nothing has been done with them.
    AfterClaim,
    /// Rows born leased are about to be handed over in memory.
    BeforeHandOver,
    /// A window is about to be published.
    BeforePublish,
    /// The broker has confirmed, no row is settled.
    AfterPublish,
    /// Rows are settled after their confirm.
    AfterSettle,
    /// An API's transaction is about to commit.
    BeforeApiCommit,
    /// An API's transaction has committed, the messages have not left.
    AfterApiCommit,
    /// What recurs is due, its message is not with the committer.
    BeforeFiring,
    /// The schedule has moved and its message is written.
    AfterFiring,
    /// Leases have been extended.
    AfterExtend,
    /// A sweep has run.
    AfterSweep,
}

impl Point {
    /// Every point, in the order of the walk.
    pub const ALL: [Self; 25] = [
        Self::Received,
        Self::Decoded,
        Self::Loaded,
        Self::Handled,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeAck,
        Self::AfterAck,
        Self::BeforeTakeOver,
        Self::AfterTakeOver,
        Self::BeforeDeadLetter,
        Self::AfterDeadLetter,
        Self::BeforeTxCommit,
        Self::AfterTxCommit,
        Self::AfterClaim,
        Self::BeforeHandOver,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::AfterSettle,
        Self::BeforeApiCommit,
        Self::AfterApiCommit,
        Self::BeforeFiring,
        Self::AfterFiring,
        Self::AfterExtend,
        Self::AfterSweep,
    ];

    /// Returns its name, for example `after_commit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Decoded => "decoded",
            Self::Loaded => "loaded",
            Self::Handled => "handled",
            Self::BeforeCommit => "before_commit",
            Self::AfterCommit => "after_commit",
            Self::BeforeAck => "before_ack",
            Self::AfterAck => "after_ack",
            Self::BeforeTakeOver => "before_take_over",
            Self::AfterTakeOver => "after_take_over",
            Self::BeforeDeadLetter => "before_dead_letter",
            Self::AfterDeadLetter => "after_dead_letter",
            Self::BeforeTxCommit => "before_tx_commit",
            Self::AfterTxCommit => "after_tx_commit",
            Self::AfterClaim => "after_claim",
            Self::BeforeHandOver => "before_hand_over",
            Self::BeforePublish => "before_publish",
            Self::AfterPublish => "after_publish",
            Self::AfterSettle => "after_settle",
            Self::BeforeApiCommit => "before_api_commit",
            Self::AfterApiCommit => "after_api_commit",
            Self::BeforeFiring => "before_firing",
            Self::AfterFiring => "after_firing",
            Self::AfterExtend => "after_extend",
            Self::AfterSweep => "after_sweep",
        }
    }
}

/// Marks that the process has reached a point.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn at(_: Point) {
    crate::sync::point();
}

#[cfg(feature = "faults")]
pub use armed::{at, crash_at, has_crashed};

#[cfg(feature = "faults")]
mod armed {
    use std::cell::Cell;
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    /// What `SAGABUS_FAULT` asks for.
    struct Plan {
        point: String,
        hit: u64,
        hits: AtomicU64,
    }

    thread_local! {
        static CRASH: Cell<Crash> = const { Cell::new(Crash::Never) };
    }

    /// Where the tasks of a thread end.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Crash {
        Never,
        At(Point),
        /// One has ended: the others do, wherever they come next.
        Everywhere,
    }

    /// Ends the task of this thread that reaches a point next, and then every other one that
    /// reaches any point, until this is called again: for tests whose host runs on their own
    /// thread, and who stop it as soon as that has happened. `None`: nothing ends.
    pub fn crash_at(point: Option<Point>) {
        CRASH.set(point.map_or(Crash::Never, Crash::At));
    }

    /// Says whether a task of this thread has ended where it was to end.
    pub fn has_crashed() -> bool {
        CRASH.get() == Crash::Everywhere
    }

    /// Marks that the process has reached a point, and kills it where that was asked for.
    pub fn at(point: Point) {
        crate::sync::point();
        if [Crash::At(point), Crash::Everywhere].contains(&CRASH.get()) {
            CRASH.set(Crash::Everywhere);
            // Past the hook that prints panics: this one is meant.
            std::panic::resume_unwind(Box::new("crashed by a test"));
        }
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let Some(plan) = PLAN.get_or_init(read_plan) else {
            return;
        };
        if plan.point != point.as_str() {
            return;
        }
        let hit = plan.hits.fetch_add(1, Ordering::SeqCst) + 1;
        if hit == plan.hit {
            // One write, so that the line is whole when the process is gone.
            let line = format!("fault {} {hit} kill\n", plan.point);
            let _ = std::io::stderr().write_all(line.as_bytes()); // The parent misses the line and says so.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            ); // A process can always signal itself.
            loop {
                std::thread::park();
            }
        }
    }

    fn read_plan() -> Option<Plan> {
        let text = std::env::var("SAGABUS_FAULT").ok()?;
        let mut parts = text.split(':');
        let point = parts.next()?.to_owned();
        let hit = parts.next()?.parse().ok()?;
        Some(Plan {
            point,
            hit,
            hits: AtomicU64::new(0),
        })
    }
}
