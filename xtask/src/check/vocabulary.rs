//! One word per concept, in identifiers. Comments and strings are not read.
//!
//! An identifier is split into its words (`batch_writer`, `BatchWriter` and `BATCH_WRITER` are all
//! `batch writer`); a listed word is found in the singular and the plural.

use std::collections::BTreeSet;

use super::finding::{Finding, covers};
use super::source::Source;

/// A word that is not used, and the one that is.
struct Word {
    /// One or more words, separated by spaces.
    not: &'static str,
    /// What to say instead.
    say: &'static str,
    allowed: &'static [Exception],
}

/// Where the word is right, because somebody else chose it.
enum Exception {
    /// In this file, or in this folder (with `/` at its end).
    Under(
        &'static str,
        #[allow(dead_code, reason = "read by people")] &'static str,
    ),
    /// In this identifier.
    Name(
        &'static str,
        #[allow(dead_code, reason = "read by people")] &'static str,
    ),
}

use Exception::{Name, Under};

const fn word(not: &'static str, say: &'static str) -> Word {
    Word {
        not,
        say,
        allowed: &[],
    }
}

const RABBITMQ: Exception = Under("bus-rabbitmq/", "the words of AMQP and lapin");
const KAFKA: Exception = Under("bus-kafka/", "the words of Kafka and rdkafka");
const BENCH: Exception = Under(
    "bench/",
    "talks to drivers directly in its reference programs",
);

/// The left column of `docs/glossary.md` is used for a concept, the right one is not.
const WORDS: &[Word] = &[
    word("dto", "message"),
    Word {
        not: "payload",
        say: "body",
        allowed: &[RABBITMQ, KAFKA, BENCH],
    },
    Word {
        not: "properties",
        say: "headers",
        allowed: &[
            RABBITMQ,
            BENCH,
            Under("model/", "what a model checker checks"),
        ],
    },
    word("packet", "envelope"),
    Word {
        not: "consumer",
        say: "handler or endpoint",
        allowed: &[RABBITMQ, KAFKA, BENCH],
    },
    Word {
        not: "worker",
        say: "handler or replica",
        allowed: &[
            Name("worker_threads", "an option of tokio"),
            Name("WorkerCrashed", "an error of sqlx"),
            Under("bench/peers/", "the words of those that are measured"),
        ],
    },
    Word {
        not: "emit",
        say: "send or publish",
        allowed: &[Under("macros/", "code generation emits tokens")],
    },
    word("batch writer", "committer"),
    Word {
        not: "journal",
        say: "history",
        allowed: &[
            Name("journal_mode", "an option of SQLite"),
            Name("SqliteJournalMode", "an option of SQLite"),
        ],
    },
    word("forwarder", "relay"),
    Word {
        not: "dispatcher",
        say: "relay, or dispatch for incoming messages",
        allowed: &[Under(
            "tests/it/outage/",
            "a module of `tracing` that sets where events go",
        )],
    },
    Word {
        not: "dedup",
        say: "accept, or inbox",
        allowed: &[
            Name("dedup", "a method of Vec"),
            Name("dedup_by", "a method of Vec"),
            Name("dedup_by_key", "a method of Vec"),
        ],
    },
    word("orchestration", "saga or flow"),
    word("orchestrator", "saga or flow"),
    word("workflow", "flow"),
    word("activity", "step"),
    Word {
        not: "requeue",
        say: "redrive or release",
        allowed: &[RABBITMQ, BENCH],
    },
    Word {
        not: "poison",
        say: "dead letter",
        allowed: &[Name("PoisonError", "of the standard library's locks")],
    },
    word("error queue", "dead letter"),
    word("quiesce", "drain"),
    word("saga error", "saga::Error"),
    word("flow error", "flow::Error"),
    Word {
        not: "num",
        say: "n_rows, or row_count",
        allowed: &[Name("get_version_num", "a method of uuid")],
    },
];

/// Finds listed words, each identifier once per file, and functions named `get_..`.
pub(crate) fn look(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for at in (0..source.tokens.len()).filter(|at| source.is_word(*at)) {
        let name = source.word(at);
        if at > 0 && source.word(at - 1) == "fn" && name.starts_with("get_") {
            let remedy = format!("say what it returns: `{}`", &name[4..]);
            found.push(Finding::at(
                source,
                at,
                format!("function `{name}`"),
                remedy,
            ));
        }
        if !seen.insert(name) {
            continue;
        }
        let parts = parts(name);
        for word in WORDS.iter().filter(|word| has(&parts, word.not)) {
            if !is_allowed(word, name, &source.path) {
                let fact = format!("`{name}` says \"{}\"", word.not);
                let remedy = format!("the word here is: {}", word.say);
                found.push(Finding::at(source, at, fact, remedy));
            }
        }
    }
    found
}

fn is_allowed(word: &Word, name: &str, path: &str) -> bool {
    word.allowed.iter().any(|exception| match exception {
        Under(place, _) => covers(place, path),
        Name(allowed, _) => *allowed == name,
    })
}

fn has(parts: &[String], not: &str) -> bool {
    let not: Vec<&str> = not.split(' ').collect();
    parts.windows(not.len()).any(|window| {
        window
            .iter()
            .zip(&not)
            .all(|(part, word)| part == word || part.strip_suffix('s') == Some(word))
    })
}

/// The words of an identifier, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let characters: Vec<char> = name.chars().collect();
    for (at, c) in characters.iter().enumerate() {
        let after_lower = at > 0 && characters[at - 1].is_lowercase();
        let before_lower = characters
            .get(at + 1)
            .is_some_and(|next| next.is_lowercase());
        let after_upper = at > 0 && characters[at - 1].is_uppercase();
        if *c == '_' || (c.is_uppercase() && (after_lower || (after_upper && before_lower))) {
            parts.push(String::new());
        }
        if let (false, Some(last)) = (*c == '_', parts.last_mut()) {
            last.extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(path: &str, text: &str) -> Vec<String> {
        look(&Source::of(path, text))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn identifiers_are_split_into_words() {
        let cases = [
            ("batch_writer", "batch writer"),
            ("BatchWriter", "batch writer"),
            ("BATCH_WRITER", "batch writer"),
            ("HTTPServer2", "http server2"),
            ("_x", "x"),
        ];
        for (name, expected) in cases {
            assert_eq!(parts(name).join(" "), expected);
        }
    }

    #[test]
    fn listed_words_are_found_with_the_word_to_say() {
        let samples = [
            ("struct PaymentWorker;", "handler or replica"),
            ("fn f(payload: u8) {}", "body"),
            ("let batch_writers = 1;", "committer"),
            ("enum SagaError {}", "saga::Error"),
            ("fn get_state() {}", "`state`"),
        ];
        for (text, say) in samples {
            let found = facts("saga/src/timer.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(say), "{}", found[0]);
        }
        let twice = facts(
            "saga/src/timer.rs",
            "fn a(payload: u8) {}\nfn b(payload: u8) {}",
        );
        assert_eq!(twice.len(), 1, "once per file and identifier");
    }

    #[test]
    fn comments_strings_and_other_peoples_names_are_allowed() {
        let fine = "// the worker's payload\nlet x = \"consumer\"; v.dedup(); PoisonError::x();\n\
                    Builder::new().worker_threads(2); map.get_mut(x); quiescent; numeral;";
        assert_eq!(facts("saga/src/timer.rs", fine), [""; 0]);
        let amqp = "fn consumer(payload: u8) { requeue }";
        assert_eq!(facts("bus-rabbitmq/src/consumer.rs", amqp), [""; 0]);
        assert_eq!(facts("bus-core/src/relay.rs", amqp).len(), 3);
    }
}
