//! What a run showed beside its counts, from the lines that tests print: what each transport kept of
//! its contract, and what became of messages in each fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The areas of the transports' contract, as `transport_suite!` names its modules. No other suite
/// has one of these.
const AREAS: [&str; 7] = [
    "routing",
    "publishing",
    "deliveries",
    "replicas",
    "owners",
    "traffic",
    "faults",
];
/// How tests say what a broker cannot be made to do.
const SKIPPED: &str = "SKIPPED CAPABILITY: ";
/// What every judge of a fault says when it is content; one that is not fails its test.
const JUDGED: &str = "lost 0";

/// Collects it.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    transports: BTreeMap<String, Contract>,
    faults: Vec<String>,
}

/// One transport's.
#[derive(Debug, Default)]
struct Contract {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Cases that its broker cannot be made to show, and what they need.
    skipped: BTreeMap<String, String>,
}

impl Evidence {
    /// Keeps what a line says, if it says something.
    pub(crate) fn note(&mut self, line: &str) {
        if let Some((test, word)) = split(line, "test ", " ... ") {
            self.ended(test, word);
        } else if let Some((what, test)) = split(line, SKIPPED, " in ") {
            if let Some((transport, case)) = case_of(test) {
                let contract = self.transports.entry(transport).or_default();
                contract.skipped.insert(case, what.to_owned());
            }
        } else if line.contains(JUDGED) && !line.starts_with(' ') {
            self.faults.push(line.to_owned());
        }
    }

    fn ended(&mut self, test: &str, word: &str) {
        let has_passed = match word {
            "ok" => true,
            "FAILED" => false,
            // One test at a time: what it says stands behind its name, and how it ends alone.
            said => return self.note(said),
        };
        if let Some((transport, case)) = case_of(test) {
            let contract = self.transports.entry(transport).or_default();
            match has_passed {
                true => contract.passed.insert(case),
                false => contract.failed.insert(case),
            };
        }
    }

    /// Says whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.transports.is_empty() && self.faults.is_empty()
    }
}

/// Splits what stands behind a beginning.
fn split<'l>(line: &'l str, begin: &str, at: &str) -> Option<(&'l str, &'l str)> {
    line.strip_prefix(begin)?.split_once(at)
}

/// Splits a test's name into the transport and the case; `None` for any other test.
fn case_of(test: &str) -> Option<(String, String)> {
    let mut parts: Vec<&str> = test.split("::").collect();
    let (case, area) = (parts.pop()?, parts.pop()?);
    let is_suite = parts.first() == Some(&"conformance") && AREAS.contains(&area);
    let named = parts
        .get(1..)
        .filter(|named| is_suite && !named.is_empty())?;
    Some((named.join("::"), format!("{area}::{case}")))
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.transports.is_empty() {
            writeln!(
                f,
                "{:<28} {:>6} {:>7}  not shown there",
                "transport", "cases", "failed"
            )?;
        }
        for (transport, contract) in &self.transports {
            let shown = contract.passed.len() - contract.skipped.len().min(contract.passed.len());
            let why: BTreeSet<_> = contract.skipped.values().map(String::as_str).collect();
            let why: Vec<_> = why.into_iter().collect();
            let skipped = match contract.skipped.len() {
                0 => String::new(),
                count => format!("  {count}: {}", why.join(", ")),
            };
            let failed = contract.failed.len();
            writeln!(f, "{transport:<28} {shown:>6} {failed:>7}{skipped}")?;
        }
        if !self.faults.is_empty() {
            writeln!(f, "faults, each judged by what was written:")?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_by_transport_and_faults_are_said_again() {
        let mut evidence = Evidence::default();
        assert!(evidence.is_empty());
        for line in [
            "test conformance::rabbitmq::routing::one ... ok",
            "test conformance::rabbitmq::faults::two ... ok",
            "SKIPPED CAPABILITY: Nacks in conformance::rabbitmq::faults::two",
            "test conformance::postgres::as_a_transport::owners::one ... FAILED",
            // Other suites, other tests, and the runner's own words.
            "test conformance::postgres::sources::one ... ok",
            "test conformance::as_the_bus::sending::one ... ok",
            "test queue::routing::one ... ok",
            "rabbitmq link: effects 10, lost 0, duplicated 0, ghosts 0",
            "test kafka::cut ... kafka link: effects 20, lost 0, duplicated 0, ghosts 0",
            "  effects 2329, lost 0, duplicated 0, unexpected 0",
            "test result: ok. 3 passed; 0 failed",
        ] {
            evidence.note(line);
        }
        let said = evidence.to_string();
        let lines: Vec<_> = said.lines().map(str::trim_end).collect();
        let row = |transport: &str, rest: &str| format!("{transport:<28} {rest}");
        assert_eq!(
            lines[1..],
            [
                row("postgres::as_a_transport", "     0       1"),
                row("rabbitmq", "     1       0  1: Nacks"),
                "faults, each judged by what was written:".to_owned(),
                "  rabbitmq link: effects 10, lost 0, duplicated 0, ghosts 0".to_owned(),
                "  kafka link: effects 20, lost 0, duplicated 0, ghosts 0".to_owned(),
            ]
        );
    }
}
