//! What a guard says when a rule is broken.

use std::fmt;

use super::source::Source;

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Relative to the root.
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is there.
    pub(crate) fact: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Finding {
    /// A finding at a token.
    pub(crate) fn at(
        source: &Source,
        token: usize,
        fact: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path: source.path.clone(),
            line: source.line(token),
            fact: fact.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}; {}",
            self.path, self.line, self.fact, self.remedy
        )
    }
}

/// A place where a rule does not hold, and why.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// A file, or a folder with `/` at its end.
    pub(crate) path: &'static str,
    /// The reason, for whoever reads the list.
    #[allow(
        dead_code,
        reason = "read by people: an exception without a reason is a mistake"
    )]
    pub(crate) why: &'static str,
}

/// Whether a list of exceptions covers a file.
pub(crate) fn allows(list: &[Allowed], path: &str) -> bool {
    list.iter().any(|allowed| covers(allowed.path, path))
}

/// Whether `place` is the file or a folder above it.
pub(crate) fn covers(place: &str, path: &str) -> bool {
    if place.ends_with('/') {
        path.starts_with(place)
    } else {
        path == place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_place_fact_and_remedy() {
        let source = Source::of("a/b.rs", "x\ny");
        let finding = Finding::at(&source, 1, "`y` is here", "write `z`");
        assert_eq!(finding.to_string(), "a/b.rs:2: `y` is here; write `z`");
    }

    #[test]
    fn folders_and_files_are_covered() {
        assert!(covers("bench/", "bench/src/main.rs"));
        assert!(!covers("bench/", "bench-more/src/main.rs"));
        assert!(!covers("a/b.rs", "a/b.rs.bak"));
    }
}
