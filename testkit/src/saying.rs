//! What a program says, to look for secrets in it: a test of this program, run as a child that
//! prints everything that anybody logs.

use std::fmt::Write as _;
use std::process::Command;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Tells the child that it is one, and what it is to work with.
const CHILD: &str = "SAGABUS_SAYS_EVERYTHING";

/// Runs a test of this program as a child, and returns all that it printed. The test begins with
/// [`told`], which says `word` there.
///
/// # Panics
/// When the child fails.
pub fn heard(test: &str, word: &str) -> String {
    let program = std::env::current_exe().expect("this test is a program");
    let mut child = Command::new(program);
    child
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, word);
    let output = child.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "there is such a test: {said}");
    said
}

/// Returns the word that a child was given, and prints from then on whatever is logged, with all
/// fields: ours down to `trace`, that of others down to a level. `None` where this is no child.
///
/// # Panics
/// When somebody else has taken the logs already.
pub fn told(others: Level) -> Option<String> {
    let word = std::env::var(CHILD).ok()?;
    tracing::subscriber::set_global_default(Everything { others }).expect("nobody else logs here");
    Some(word)
}

/// Prints what is logged.
struct Everything {
    /// The finest level of what is not ours.
    others: Level,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Everything {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sagabus") || *metadata.level() <= self.others
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", attributes.metadata().target()));
        attributes.record(&mut line);
        println!("{}", line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        println!("{}", line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("log {}", event.metadata().target()));
        event.record(&mut line);
        println!("{}", line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
