//! What failed, from what test programs print: said again at the end, where one looks first.

use std::fmt;

/// The most lines that are kept of a stage.
const LINES_MAX: usize = 40;
/// How programs that are no test harness tell what is wrong.
const WORDS: [&str; 7] = [
    "FAILED",
    "WRONG ",
    "NEVER ",
    "NOT CAUGHT ",
    "VIOLATED ",
    "STRAY ",
    "| MISSED |",
];

/// The lines that tell of failures.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    lines: Vec<String>,
    beyond: usize,
}

impl Failures {
    /// Keeps a line that tells of a failure.
    pub(crate) fn note(&mut self, line: &str) {
        let is_total = line.starts_with("test result: ");
        if is_total || !WORDS.iter().any(|word| line.contains(word)) {
            return;
        }
        if self.lines.len() < LINES_MAX {
            self.lines.push(line.trim().to_owned());
        } else {
            self.beyond += 1;
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            write!(f, "\n  {line}")?;
        }
        match self.beyond {
            0 => Ok(()),
            beyond => write!(f, "\n  and {beyond} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_kept_and_what_passed_is_not() {
        let mut failures = Failures::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored",
            "  NEVER HAPPENED a duplicate that was recognised",
            "| H1 | 0.84 | 0.69 | 0.88 | kept |",
        ] {
            failures.note(line);
        }
        let said = failures.to_string();
        let meant = "\n  test a::c ... FAILED\n  NEVER HAPPENED a duplicate that was recognised";
        assert_eq!(said, meant);
    }

    #[test]
    fn a_stage_that_fails_everywhere_says_how_much_more_there_is() {
        let mut failures = Failures::default();
        for n in 0..LINES_MAX + 3 {
            failures.note(&format!("test t{n} ... FAILED"));
        }
        let said = failures.to_string();
        assert_eq!(said.lines().count(), 1 + LINES_MAX + 1);
        assert!(said.ends_with("and 3 more"));
    }
}
