//! Counts tests from what test programs print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Said by the harness to be ignored.
    pub(crate) skipped: u64,
}

impl Totals {
    /// What one line of output says, if it closes a run of tests:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ..` from a test harness, or
    /// `3 passed, 0 failed, 1 skipped` from another program.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let line = line.trim();
        let Some(result) = line.strip_prefix("test result: ") else {
            return Self::of_plain(line);
        };
        let counts = result.split_once(". ")?.1;
        let mut totals = Self::default();
        for part in counts.split(';') {
            totals.take(part)?;
        }
        Some(totals)
    }

    fn of_plain(line: &str) -> Option<Self> {
        let mut totals = Self::default();
        let parts: Vec<&str> = line.split(", ").collect();
        let names = ["passed", "failed", "skipped"];
        if parts.len() < 2 || parts.len() > names.len() {
            return None;
        }
        for (part, name) in parts.iter().zip(names) {
            let (count, said) = part.split_once(' ')?;
            if said != name || count.parse::<u64>().is_err() {
                return None;
            }
            totals.take(part)?;
        }
        Some(totals)
    }

    fn take(&mut self, part: &str) -> Option<()> {
        let (count, name) = part.trim().split_once(' ')?;
        let place = match name {
            "passed" => &mut self.passed,
            "failed" => &mut self.failed,
            "ignored" | "skipped" => &mut self.skipped,
            // Measured, filtered out, and the time.
            _ => return Some(()),
        };
        *place += count.parse::<u64>().ok()?;
        Some(())
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_other_lines_are_not() {
        let totals = |passed, failed, skipped| {
            Some(Totals {
                passed,
                failed,
                skipped,
            })
        };
        let cases = [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; \
                 finished in 0.10s",
                totals(12, 0, 1),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                totals(1, 2, 0),
            ),
            ("40 passed, 1 failed, 2 skipped", totals(40, 1, 2)),
            ("  40 passed, 0 failed", totals(40, 0, 0)),
            ("test a::b ... ok", None),
            ("failures: 3 passed", None),
            ("no passed, 0 failed", None),
            ("3 passed", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Totals::of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn the_closing_line_is_one_that_we_count_ourselves() {
        let totals = Totals {
            passed: 3,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(Totals::of_line(&totals.to_string()), Some(totals));
    }
}
