//! What can be asked, as clap knows it.

use clap::{Args, Parser, Subcommand};

use sagabus_core::MessageId;
use sagabus_ops::Role;

use crate::audit::AuditArguments;
use crate::bulk::PaceArguments;
use crate::filter::DeadLetters;
use crate::inbox::InboxVerb;
use crate::locks::LocksVerb;
use crate::machines::Drawing;
use crate::output::Form;
use crate::plan::PlanArguments;
use crate::republish::RepublishArguments;
use crate::row_filter::{RowArguments, RowChangeArguments, RowListArguments};
use crate::sagas::SagasVerb;
use crate::schedules::SchedulesVerb;
use crate::schema::SchemaVerb;
use crate::sight::SightArguments;
use crate::timers::TimersVerb;

const AFTER_HELP: &str = "\
Exit codes: `sagabus explain exit-codes`; also: `plan`, `demo`, `completions SHELL`, `man FOLDER`
Example: SAGABUS_STORE=orders.db sagabus dead-letters retry --endpoint payments --canary 5";

/// Looks into a sagabus database and puts right what went wrong.
#[derive(Debug, Parser)]
#[command(name = "sagabus", version, after_help = AFTER_HELP,
    disable_help_subcommand = true)]
pub(crate) struct Arguments<N: Subcommand> {
    /// The database: SQLite file or postgres:// URL.
    #[arg(
        long,
        alias = "url",
        env = "SAGABUS_STORE",
        hide_env_values = true,
        global = true,
        value_name = "URL"
    )]
    pub(crate) store: Option<String>,
    /// Print a `table`, one `json` document (`--json`), or `ndjson`.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) output: Form,
    /// Print JSON: short for `--output json`.
    #[arg(long, global = true, conflicts_with = "output", hide = true)]
    json: bool,
    /// Look again every so many seconds, until Ctrl-C or a failure.
    #[arg(long, global = true, value_name = "SECONDS", conflicts_with = "yes",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
    /// In the place of `sagabus.toml`; `--profile NAME` is one in it.
    #[arg(
        long,
        env = "SAGABUS_CONFIG",
        hide_env = true,
        global = true,
        value_name = "FILE"
    )]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Which profile of that file.
    #[arg(
        long,
        env = "SAGABUS_PROFILE",
        hide_env_values = true,
        global = true,
        value_name = "NAME",
        hide = true
    )]
    pub(crate) profile: Option<String>,
    #[command(flatten)]
    pub(crate) operator: OperatorArguments,
    #[command(subcommand)]
    pub(crate) noun: N,
}

impl<N: Subcommand> Arguments<N> {
    /// Returns how answers are printed.
    pub(crate) fn form(&self) -> Form {
        if self.json { Form::Json } else { self.output }
    }
}

/// What a service's own program says of itself.
pub(crate) const OWN_ABOUT: &str = "Runs this service, and looks into its database";

/// What a service's own program is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnNoun {
    /// Run the service until Ctrl-C or SIGTERM.
    Run,
    #[command(flatten)]
    Noun(Box<Noun>),
}

/// Who changes something, and whether that is certain.
#[derive(Debug, Args)]
pub(crate) struct OperatorArguments {
    /// Make the change without asking.
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Only show what would be changed.
    #[arg(long, global = true, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Why, for the audit.
    #[arg(long, global = true, default_value = "", value_name = "TEXT")]
    pub(crate) why: String,
    /// reader, body-reader, operator or admin.
    #[arg(
        long,
        env = "SAGABUS_ROLE",
        hide_env_values = true,
        global = true,
        default_value_t = Role::Admin,
        hide_default_value = true
    )]
    pub(crate) role: Role,
    /// Who, for the audit.
    #[arg(long, global = true, env = "SAGABUS_WHO", value_name = "NAME")]
    pub(crate) who: Option<String>,
}

/// What it is about.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// How the whole is doing, and what to do about it.
    Status,
    /// Examines a live system: clocks, retention, transactions, what stands still.
    #[command(after_help = "Example:\n  sagabus doctor || page-somebody")]
    Doctor,
    /// Messages that stopped being tried.
    #[command(subcommand)]
    DeadLetters(DeadLettersVerb),
    /// Changes of many: under way, paused, or over.
    #[command(subcommand)]
    Operations(OperationsVerb),
    /// Messages that are still to be sent or handled.
    #[command(subcommand)]
    Outbox(OutboxVerb),
    /// Messages that brokers and APIs brought, and what was done.
    #[command(subcommand)]
    Inbox(InboxVerb),
    /// Sagas, machines and flows: their instances.
    #[command(subcommand, visible_alias = "instances")]
    Sagas(SagasVerb),
    /// Business keys that sagas have reserved.
    #[command(subcommand)]
    Locks(LocksVerb),
    /// Single messages.
    #[command(subcommand)]
    Messages(MessagesVerb),
    /// Processes that run, or ran.
    Hosts,
    /// Named receivers and what they take.
    #[command(subcommand)]
    Endpoints(EndpointsVerb),
    /// State machines, drawn as the hosts that run them described them.
    #[command(subcommand)]
    Machines(MachinesVerb),
    /// Timers of instances: moved, fired, cancelled.
    #[command(subcommand)]
    Timers(TimersVerb),
    /// What recurs: paused, resumed, fired.
    #[command(subcommand)]
    Schedules(SchedulesVerb),
    /// What hosts said of themselves: endpoints, handlers, machines.
    Describe {
        /// Only the latest host of this name.
        host: Option<String>,
    },
    /// The tables and functions of the database.
    #[command(subcommand)]
    Schema(SchemaVerb),
    /// Compares a release with what a database holds, before it is rolled out.
    #[command(
        hide = true,
        after_help = "Example:\n  sagabus plan --release new.json   # of `shop describe --json`"
    )]
    Plan(PlanArguments),
    /// Fills a new database with the afternoon of a shop, so that every command has something to
    /// show.
    #[command(hide = true, after_help = "Example:\n  sagabus demo --store demo.db")]
    Demo,
    /// Tells what an error code stands for, and what to do; without one, lists them.
    #[command(after_help = "Example:\n  sagabus explain SB0204")]
    Explain {
        /// The code, for example SB0204.
        code: Option<String>,
    },
    /// Prints what makes a shell complete the commands.
    #[command(
        hide = true,
        after_help = "Example:\n  sagabus completions bash > /etc/bash_completion.d/sagabus"
    )]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Writes a manual page for each command.
    #[command(
        hide = true,
        after_help = "Example:\n  sagabus man /usr/local/share/man/man1"
    )]
    Man {
        /// Into which folder.
        folder: std::path::PathBuf,
    },
    /// What came to each endpoint, and what became of it.
    #[command(after_help = "Example:\n  sagabus accounts || page-somebody")]
    Accounts,
    /// What operators changed.
    #[command(after_help = "Example:\n  sagabus audit --by ada --younger-than 1d")]
    Audit {
        #[command(flatten)]
        which: AuditArguments,
        #[command(flatten)]
        sight: SightArguments,
    },
}

/// Which part of a list.
#[derive(Debug, Args)]
pub(crate) struct PageArguments {
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// Go on behind this id.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<i64>,
    /// The oldest first.
    #[arg(long)]
    pub(crate) oldest_first: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersVerb {
    /// List them, the latest first.
    List {
        #[command(flatten)]
        filter: DeadLetters,
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show one: headers, body, every attempt.
    Show {
        /// Its id, as `list` shows it.
        id: i64,
        #[command(flatten)]
        sight: SightArguments,
    },
    /// Count them by endpoint and kind of failure.
    Groups {
        #[command(flatten)]
        filter: DeadLetters,
        /// How many groups at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Have a live host handle one and undo it: what would it do now?
    Rehearse {
        /// Its id.
        id: i64,
    },
    /// Let hosts handle them again.
    Retry(RetryArguments),
    /// Say that they are not wanted any more; they stay readable.
    Discard(BulkArguments),
    /// Open discarded ones again.
    Restore(BulkArguments),
    /// Retry one with another body.
    Edit {
        /// Its id.
        id: i64,
        /// The file with the new body; - reads standard input.
        #[arg(long, value_name = "FILE")]
        body: String,
        /// Whether it stays that message or is new.
        #[arg(long, value_enum)]
        identity: Identity,
        #[command(flatten)]
        sight: SightArguments,
    },
}

/// Who an edited message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Identity {
    // With a comment for clap, the help would take twice the lines.
    Keep,
    New,
}

/// Which dead letters a change is for, and how fast it goes.
#[derive(Debug, Args)]
pub(crate) struct BulkArguments {
    /// These ones.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<i64>,
    #[command(flatten)]
    pub(crate) filter: DeadLetters,
    /// All there are: needed where nothing else says which.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) pace: PaceArguments,
}

/// What is retried, where, and when that stops by itself.
#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    #[command(flatten)]
    pub(crate) bulk: BulkArguments,
    /// Let this endpoint handle them, not the one that gave them up.
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) to: Option<String>,
    /// Retry so many first, the others only when these are handled.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) canary: u32,
    /// Pause when more of 100 fail again; else, one of the canary.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) stop_at: Option<u8>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsVerb {
    /// List them, the latest first.
    List(PageArguments),
    /// Show one: what was meant, how far it is, what failed again.
    Show {
        /// Its id, as `list` shows it.
        id: i64,
    },
    /// Stop one for now, whoever drives it.
    Pause {
        /// Its id.
        id: i64,
    },
    /// Go on with one that is paused, or whose process died, from here.
    Resume {
        /// Its id.
        id: i64,
    },
    /// Stop one for good; what was not its turn stays as it is.
    Cancel {
        /// Its id.
        id: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxVerb {
    /// Sum up what waits, per destination.
    List,
    /// List rows that wait for an operator.
    Parked {
        #[command(flatten)]
        filter: RowListArguments,
        #[command(flatten)]
        page: PageArguments,
    },
    /// List all rows.
    Rows {
        #[command(flatten)]
        filter: RowListArguments,
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show one row: headers, body, every attempt.
    Show {
        /// Its id.
        id: i64,
        #[command(flatten)]
        sight: SightArguments,
    },
    /// Set rows aside that wait or are in hand, until somebody releases or discards them.
    Park(RowChangeArguments),
    /// Let hosts try parked rows again.
    Release {
        #[command(flatten)]
        change: RowChangeArguments,
        /// Somewhere else: `@endpoint`, or an address as `list` shows it.
        #[arg(long, value_name = "DESTINATION")]
        to: Option<String>,
    },
    /// Let rows that wait for their time be due now.
    Expedite(RowChangeArguments),
    /// Remove parked rows for good.
    Discard(RowChangeArguments),
    /// Remove what waits for one destination, for good.
    #[command(mut_arg("destination", |one| one.required(true)))]
    Purge {
        #[command(flatten)]
        filter: RowArguments,
        /// Refuse where more rows than this are meant.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        at_most: u64,
        /// How many in a second at most.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// Send again what brokers took, where hosts keep it: the same identities, the same bytes.
    Republish(RepublishArguments),
    /// Let no host send by a transport: what is for its broker waits.
    Pause(TransportArguments),
    /// Let hosts send by a paused transport again.
    Resume(TransportArguments),
}

/// Which transport.
#[derive(Debug, Args)]
pub(crate) struct TransportArguments {
    /// Its name.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) transport: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MessagesVerb {
    /// Tell all that the tables know of one: whence, what it did, what it caused.
    #[command(visible_alias = "why")]
    Show {
        /// Its identity.
        id: MessageId,
    },
    /// Show the whole conversation of one: which message caused which, and how each ended.
    Trace {
        /// Its identity; any one of the conversation.
        id: MessageId,
    },
    /// Have a live host handle one and undo it: what would it do now?
    Rehearse {
        /// Its identity.
        id: MessageId,
        /// Where, if it is at several endpoints.
        #[arg(long)]
        endpoint: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointsVerb {
    /// List them with what they take.
    List,
    /// Pause one in all its hosts: what they have in hand waits, the rest stays where it is.
    #[command(after_help = "Example:\n  sagabus endpoints pause payments --yes --why incident-17")]
    Pause {
        /// Its name.
        name: String,
    },
    /// Let a paused one go on.
    #[command(after_help = "Example:\n  sagabus endpoints resume payments --yes")]
    Resume {
        /// Its name.
        name: String,
    },
    /// Remove one that no host runs any more, or one of its subscriptions.
    Remove {
        /// Its name.
        name: String,
        /// Only its subscription to this type.
        #[arg(long = "type", value_name = "TYPE")]
        message_type: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachinesVerb {
    /// List them, each version once.
    List,
    /// Draw one.
    Show {
        /// Its name, as `list` shows it.
        name: String,
        /// In which language.
        #[arg(long, value_enum, default_value_t = Drawing::Mermaid)]
        format: Drawing,
    },
}
