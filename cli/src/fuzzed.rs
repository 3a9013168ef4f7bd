//! Whatever is typed: it is read, or refused by an error that names it; nothing panics.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use proptest::collection::vec;
use proptest::prelude::*;
use sagabus_core::MessageId;
use sagabus_ops::Role;

use crate::arguments::{Arguments, Noun};
use crate::config::Config;
use crate::failure::Failure;
use crate::filter::{age, label};
use crate::place::check;

/// Words that lead deep into the commands, beside those that lead nowhere.
const WORDS: &[&str] = &[
    "status",
    "dead-letters",
    "operations",
    "outbox",
    "sagas",
    "messages",
    "endpoints",
    "timers",
    "schedules",
    "locks",
    "machines",
    "audit",
    "schema",
    "migrate",
    "instances",
    "why",
    "explain",
    "list",
    "show",
    "groups",
    "retry",
    "discard",
    "restore",
    "edit",
    "rehearse",
    "transition",
    "alter",
    "complete",
    "move",
    "fire",
    "cancel",
    "pause",
    "resume",
    "remove",
    "trace",
    "park",
    "expedite",
    "purge",
    "republish",
    "--since",
    "--until",
    "--at-most",
    "--destination",
    "--store",
    "--config",
    "--profile",
    "--json",
    "-o",
    "ndjson",
    "--watch",
    "--yes",
    "--dry-run",
    "--why",
    "--who",
    "--role",
    "--endpoint",
    "--type",
    "--text",
    "--error",
    "--key",
    "--label",
    "--message",
    "--older-than",
    "--younger-than",
    "--idle-for",
    "--status",
    "--limit",
    "--after",
    "--rate",
    "--canary",
    "--stop-at",
    "--to",
    "--state",
    "--data",
    "--body",
    "--identity",
    "--all",
    "1",
    "-1",
    "15m",
    "keep",
    "018f4e5a-0000-7000-8000-000000000001",
    "a=b",
    "--",
    "-",
];

fn word() -> impl Strategy<Value = OsString> {
    prop_oneof![
        6 => proptest::sample::select(WORDS).prop_map(OsString::from),
        1 => any::<String>().prop_map(OsString::from),
        1 => vec(any::<u8>(), 0..40).prop_map(OsString::from_vec),
        1 => (proptest::sample::select(WORDS), "\\PC{0,20}")
            .prop_map(|(name, value)| OsString::from(format!("{name}={value}"))),
    ]
}

/// Pieces of configuration files, right ones and wrong ones.
const PIECES: &[&str] = &[
    "store",
    "role",
    "output",
    "who",
    "profile",
    "profiles",
    "[profiles.prod]",
    "[profiles",
    "[[profiles]]",
    " = ",
    "=",
    "'SECRET'",
    "\"SECRET\"",
    "\"SECRET",
    "'reader'",
    "'json'",
    "'prod'",
    "'postgres://a:SECRET@b/c'",
    "{ store = 'SECRET' }",
    "\"\"\"",
    "17",
    "true",
    "1979-05-27",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "# SECRET",
    ".",
    "\u{0}",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever stands in a file: it is read, or refused with a line that it has and no value.
    #[test]
    fn a_configuration_is_read_or_its_line_is_named(
        pieces in vec(prop_oneof![
            9 => proptest::sample::select(PIECES).prop_map(str::to_owned),
            1 => "\\PC{0,8}",
        ], 0..24),
        asked in proptest::option::of("[a-z]{0,4}"),
    ) {
        let text = pieces.concat();
        match Config::read(&text) {
            Ok(config) => {
                if let Err(fact) = config.choose(asked.as_deref()) {
                    prop_assert!(fact.contains("has no profile"), "{}", fact);
                }
            }
            Err(wrong) => {
                let lines = text.split('\n').count();
                prop_assert!((1..=lines).contains(&wrong.line), "{:?} of {:?}", wrong, text);
                prop_assert!(!wrong.fact.is_empty(), "{:?}", text);
                // A name that is not known is repeated, so that it is found.
                let is_name = wrong.fact.starts_with("nothing is called");
                prop_assert!(is_name || !wrong.fact.contains("SECRET"), "{:?}", wrong);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_command_line_makes_reading_panic(words in vec(word(), 0..8)) {
        let line = std::iter::once(OsString::from("sagabus")).chain(words);
        let Err(error) = Arguments::<Noun>::try_parse_from(line) else {
            return Ok(());
        };
        let named = match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => Some(ContextKind::InvalidArg),
            ErrorKind::UnknownArgument => Some(ContextKind::InvalidArg),
            ErrorKind::InvalidSubcommand => Some(ContextKind::InvalidSubcommand),
            _ => None,
        };
        prop_assert!(named.is_none_or(|kind| error.get(kind).is_some()), "{error}");
        prop_assert!(!error.render().to_string().is_empty());
    }

    #[test]
    fn an_age_is_read_or_named(text in prop_oneof![any::<String>(), "-?[0-9]{0,22}[smhdw]?"]) {
        match age(&text) {
            Ok(read) => {
                let (count, unit) = text.split_at(text.len() - 1);
                let unit = match unit { "s" => 1, "m" => 60, "h" => 3600, _ => 86400 };
                let count: u64 = count.parse().expect("what was read is a number");
                prop_assert_eq!(read, Duration::from_secs(count * unit));
            }
            Err(refused) => prop_assert!(refused.contains(&format!("{text:?}")), "{refused}"),
        }
    }

    #[test]
    fn a_label_is_read_or_its_form_is_named(text in prop_oneof![any::<String>(), "=?[a-z=]{0,9}"]) {
        match label(&text) {
            Ok(read) => prop_assert_eq!(format!("{}={}", read.name, read.value), text),
            Err(refused) => prop_assert!(refused.contains("NAME=VALUE"), "{refused}"),
        }
    }

    #[test]
    fn a_role_or_an_identity_is_read_or_named(text in any::<String>()) {
        if let Err(refused) = text.parse::<Role>() {
            prop_assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
        if let Ok(read) = text.parse::<MessageId>() {
            prop_assert_eq!(read.to_string().parse::<MessageId>().ok(), Some(read));
        }
    }

    /// What a configuration or `SAGABUS_STORE` names, without opening it.
    #[test]
    fn a_database_is_named_or_refused_without_a_password(
        scheme in "[a-z+]{0,9}", rest in any::<String>(), secret in "[A-Z]{12}",
    ) {
        let text = format!("{scheme}://me:{secret}@{rest}");
        if let Err(failure) = check(Some(&text)) {
            let Failure::Usage(fact) = failure else {
                return Err(TestCaseError::fail("another failure"));
            };
            prop_assert!(fact.contains("[SB0302]") && !fact.contains(&secret), "{fact}");
        }
    }
}
