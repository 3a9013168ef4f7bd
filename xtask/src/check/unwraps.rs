//! No `unwrap` outside tests: an error is handled, or `expect` says why it cannot be.

use super::finding::Finding;
use super::source::Source;

/// Finds calls of `unwrap` and `unwrap_err` in code that is no test.
pub(crate) fn look(source: &Source) -> Vec<Finding> {
    (0..source.tokens.len())
        .filter(|at| !source.is_test(*at))
        .filter(|at| {
            ["unwrap", "unwrap_err"]
                .iter()
                .any(|name| source.reads(*at, &[".", name, "("]))
        })
        .map(|at| {
            let fact = format!("`{}` outside tests", source.word(at + 1));
            let remedy = "return the error, or `expect(\"why this cannot be\")`";
            Finding::at(source, at + 1, fact, remedy)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwraps_are_found_outside_tests_only() {
        let text = "fn f() {\n x.unwrap(); }\n#[test] fn t() { x.unwrap(); }";
        let found = look(&Source::of("saga/src/timer.rs", text));
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .to_string()
                .starts_with("saga/src/timer.rs:2: `unwrap` outside tests; ")
        );
        assert!(look(&Source::of("tests/it/main.rs", text)).is_empty());
        let fine = "fn f() { x.unwrap_or(1); y.expect(\"checked above\"); \"z.unwrap()\"; }";
        assert!(look(&Source::of("saga/src/timer.rs", fine)).is_empty());
    }
}
