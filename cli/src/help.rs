//! The commands with an example each, and what is made from them: completions and manual pages.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::arguments::{Arguments, Noun};
use crate::failure::Failure;

/// An example for each command that says none itself.
const EXAMPLES: &[(&str, &str)] = &[
    ("status", "sagabus status --watch 2"),
    ("hosts", "sagabus hosts"),
    ("describe", "sagabus describe orders --json"),
    ("schema migrate", "sagabus schema migrate --store orders.db"),
    ("schema status", "sagabus schema status"),
    ("schema print", "sagabus schema print | psql \"$URL\""),
    ("schema grants", "sagabus schema grants | psql \"$URL\""),
    ("audit", "sagabus audit --limit 20"),
    (
        "dead-letters list",
        "sagabus dead-letters list --endpoint payments --younger-than 2h",
    ),
    ("dead-letters show", "sagabus dead-letters show 4711"),
    ("dead-letters groups", "sagabus dead-letters groups"),
    (
        "dead-letters retry",
        "sagabus dead-letters retry --text gateway --canary 5 --rate 50 --why incident-17",
    ),
    (
        "dead-letters discard",
        "sagabus dead-letters discard 6 12 --yes --why test-data",
    ),
    (
        "dead-letters restore",
        "sagabus dead-letters restore --older-than 1d --endpoint payments",
    ),
    (
        "dead-letters edit",
        "sagabus dead-letters edit 12 --body mended.json --identity keep",
    ),
    (
        "dead-letters rehearse",
        "sagabus dead-letters rehearse 4711",
    ),
    ("operations list", "sagabus operations list"),
    ("operations show", "sagabus operations show 3 --watch 2"),
    ("operations pause", "sagabus operations pause 3 --why lunch"),
    ("operations resume", "sagabus operations resume 3"),
    ("operations cancel", "sagabus operations cancel 3"),
    ("outbox list", "sagabus outbox list"),
    ("outbox parked", "sagabus outbox parked --reason no_owner"),
    (
        "outbox rows",
        "sagabus outbox rows --destination @payments --error 'timed out'",
    ),
    ("outbox show", "sagabus outbox show 4711"),
    (
        "outbox park",
        "sagabus outbox park --destination @payments --yes --why incident-17",
    ),
    (
        "outbox expedite",
        "sagabus outbox expedite --destination @payments --yes",
    ),
    (
        "outbox purge",
        "sagabus outbox purge --destination @reports --at-most 1000 --why incident-17",
    ),
    (
        "outbox republish",
        "sagabus outbox republish --since 2h --until 1h --at-most 5000 --why incident-17",
    ),
    (
        "outbox release",
        "sagabus outbox release --type shop.ship --yes",
    ),
    (
        "outbox pause",
        "sagabus outbox pause --transport archive --yes --why migration",
    ),
    (
        "outbox resume",
        "sagabus outbox resume --transport archive --yes",
    ),
    (
        "inbox list",
        "sagabus inbox list --endpoint payments --younger-than 2h",
    ),
    (
        "inbox show",
        "sagabus inbox show 01a1ffe0-c14d-721c-acd4-8bb5fe257e60",
    ),
    (
        "outbox discard",
        "sagabus outbox discard 4711 --yes --why typo",
    ),
    (
        "sagas list",
        "sagabus sagas list --label payment-id=p-17 --completed",
    ),
    ("sagas show", "sagabus sagas show order 4711"),
    ("locks list", "sagabus locks list"),
    (
        "locks break",
        "sagabus locks break 'seat/12A' --why 'the guest is gone'",
    ),
    (
        "sagas alter",
        "sagabus sagas alter order 4711 --state paid --why 'paid by hand'",
    ),
    (
        "sagas transition",
        "sagabus sagas transition order 4711 --to paid --why 'paid by hand'",
    ),
    (
        "sagas migrate",
        "sagabus sagas migrate order --why 'release 7 drops version 2'",
    ),
    ("sagas complete", "sagabus sagas complete order 4711"),
    (
        "messages show",
        "sagabus messages show 018f4e5a-0000-7000-8000-000000000001",
    ),
    (
        "messages trace",
        "sagabus messages trace 018f4e5a-0000-7000-8000-000000000001",
    ),
    (
        "messages rehearse",
        "sagabus messages rehearse 018f4e5a-0000-7000-8000-000000000001",
    ),
    ("endpoints list", "sagabus endpoints list"),
    (
        "endpoints remove",
        "sagabus endpoints remove payments --type shop.charge --yes",
    ),
    ("machines list", "sagabus machines list"),
    (
        "machines show",
        "sagabus machines show order --format dot | dot -Tsvg > order.svg",
    ),
];

/// Returns the command as clap knows it, with an example for each verb.
pub(crate) fn command() -> Command {
    with_examples(Arguments::<Noun>::command(), "")
}

fn with_examples(command: Command, path: &str) -> Command {
    let example = EXAMPLES.iter().find(|(known, _)| *known == path);
    let command = match (example, command.get_after_help()) {
        (Some((_, example)), None) => command.after_help(format!("Example:\n  {example}")),
        _ => command,
    };
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        with_examples(sub, path.trim_start())
    })
}

/// Writes what makes a shell complete the commands.
pub(crate) fn complete(shell: Shell) -> Result<(), Failure> {
    // Not to standard output at once: where somebody has closed it, that would be a panic.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "sagabus", &mut text);
    Ok(io::stdout().write_all(&text)?)
}

/// Writes a manual page for each command into a folder.
pub(crate) fn write_pages(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command(), folder)?;
    Ok(())
}
