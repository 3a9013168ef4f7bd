//! What is done, how often, and what shows that it happened.

use clap::ValueEnum;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of a host, which is started again.
    Kill,
    /// SIGSTOP of a host for 1.2 to 2.5 leases, then SIGCONT.
    Freeze,
    /// SIGTERM of a host, which has 10 s to finish what it has in hand. Alone, it is judged that
    /// no more than that was handled again.
    Terminate,
    /// `pg_terminate_backend` of everybody.
    EndConnections,
    /// Every connection to the database cut.
    CutConnections,
    /// One of forty commit calls cut: before the server has it, before it is answered, or
    /// meanwhile.
    CutCommits,
    /// PostgreSQL stopped at once, and started again.
    CrashDatabase,
    /// The disk of the database full for a while. Needs root.
    FillDisk,
    /// One host's clock set forward or back by up to three hours. Needs libfaketime.
    StepClock,
    /// One of sixty publications cut: before the broker has it, before it is confirmed, or behind
    /// its confirm.
    CutPublications,
    /// A publication held on its way for longer than a lease, in the middle of its window.
    StallPublication,
    /// SIGKILL of the broker, which is started again.
    KillBroker,
}

impl Fault {
    /// How often it strikes, compared with the others; what goes on all the time never does.
    pub(crate) fn weight(self, schedule: Schedule) -> u64 {
        match self {
            Self::Kill => schedule.kills,
            Self::Freeze => 6,
            Self::Terminate | Self::CutConnections | Self::StepClock | Self::StallPublication => 3,
            Self::EndConnections => 2,
            Self::CrashDatabase | Self::KillBroker => schedule.crashes,
            Self::FillDisk => 1,
            Self::CutCommits | Self::CutPublications => 0,
        }
    }

    /// What must have been seen, where it can happen at all.
    pub(crate) fn must(self) -> &'static [&'static str] {
        match self {
            Self::Kill => &[KILLED],
            Self::Freeze => &[FROZEN],
            Self::Terminate => &[TOLD],
            Self::EndConnections => &[ENDED],
            Self::CutConnections => &[CUT, CUT_OPEN],
            Self::CutCommits => &[COMMITTED, NOT_COMMITTED],
            Self::CrashDatabase => &[CRASHED],
            Self::FillDisk => &[FILLED, MET_FULL],
            Self::StepClock => &[STEPPED],
            Self::CutPublications => &[LOST, UNCONFIRMED, CONFIRMED],
            Self::StallPublication => &[STALLED],
            Self::KillBroker => &[BROKER_KILLED],
        }
    }
}

pub(crate) const KILLED: &str = "hosts killed (SIGKILL)";
pub(crate) const FROZEN: &str = "hosts frozen beyond their leases (SIGSTOP)";
pub(crate) const TOLD: &str = "hosts told to go (SIGTERM)";
pub(crate) const TOO_LATE: &str = "hosts that were too late to go";
pub(crate) const BADLY: &str = "hosts that did not start when told to go";
pub(crate) const STUCK: &str = "hosts that did not start within 40 s";
pub(crate) const REDRIVEN: &str = "dead letters because hosts were killed, redriven";
pub(crate) const ENDED: &str = "connections ended by the server";
pub(crate) const CUT: &str = "times every connection to the database was cut";
pub(crate) const CUT_OPEN: &str = "connections that were cut with all others";
pub(crate) const COMMITTED: &str = "commit in doubt, had committed";
pub(crate) const NOT_COMMITTED: &str = "commit in doubt, had not";
pub(crate) const CRASHED: &str = "database crashes (immediate)";
pub(crate) const FILLED: &str = "times the disk was full";
pub(crate) const MET_FULL: &str = "lives of hosts that met a full disk";
pub(crate) const STEPPED: &str = "steps of a host's clock that it saw";
pub(crate) const LOST: &str = "publication in doubt, the broker had it not";
pub(crate) const UNCONFIRMED: &str = "publication in doubt, the broker had it";
pub(crate) const CONFIRMED: &str = "connections cut behind a confirm";
pub(crate) const STALLED: &str = "publications held beyond a lease within their window";
pub(crate) const BROKER_KILLED: &str = "broker kills (SIGKILL)";

/// How densely faults follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// How often hosts are killed, compared with what else is done.
    kills: u64,
    /// How often the database's server and the broker are killed.
    crashes: u64,
    /// The pause between two faults, in milliseconds: at least and at most.
    pub(crate) pause: (u64, u64),
}

impl Schedule {
    /// A bit of everything.
    pub(crate) const MIXED: Self = Self {
        kills: 24,
        crashes: 1,
        pause: (50, 500),
    };
    /// Hosts are killed about as fast as they start.
    pub(crate) const STORM: Self = Self {
        kills: 240,
        crashes: 5,
        pause: (40, 300),
    };
}
