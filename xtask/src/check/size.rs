//! Files of at most 500 lines and functions of at most 70, so that each can be read at once.

use std::collections::BTreeSet;

use super::finding::{Allowed, Finding, allows};
use super::source::Source;

/// Lines that are neither blank nor test code, comments counted.
const FILE_LINES_MAX: usize = 500;
/// From `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that may be larger, and why.
const LARGE_FILES: &[Allowed] = &[];
/// Files with a function that may be longer, and why.
const LONG_FUNCTIONS: &[Allowed] = &[];

/// Finds files and functions of library code over their budget.
pub(crate) fn look(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let lines = code_lines(source);
    if lines > FILE_LINES_MAX && !allows(LARGE_FILES, &source.path) {
        let fact = format!("{lines} lines of code and comments, {FILE_LINES_MAX} are the budget");
        found.push(Finding::at(
            source,
            0,
            fact,
            "move a concept into a file of its own",
        ));
    }
    if allows(LONG_FUNCTIONS, &source.path) {
        return found;
    }
    for function in source.functions() {
        let (first, last) = (function.tokens.start, function.tokens.end - 1);
        let lines = source.line(last) - source.line(first) + 1;
        if lines > FUNCTION_LINES_MAX && !source.is_test(first) {
            let name = function.name;
            let fact = format!("`{name}` has {lines} lines, {FUNCTION_LINES_MAX} are the budget");
            found.push(Finding::at(
                source,
                first,
                fact,
                "split it where its steps have names",
            ));
        }
    }
    found
}

fn code_lines(source: &Source) -> usize {
    let test_lines: BTreeSet<usize> = (0..source.tokens.len())
        .filter(|at| source.is_test(*at))
        .map(|at| source.line(at))
        .collect();
    let is_test = |line: usize| {
        // A comment in a test stands before a line of that test.
        test_lines.range(line..).next().is_some_and(|next| {
            *next == line
                || (line + 1..*next).all(|between| !has_code(source, between))
                    && !has_code(source, line)
        })
    };
    let lines = source
        .text
        .lines()
        .enumerate()
        .filter(|(_, text)| !text.trim().is_empty());
    lines.filter(|(at, _)| !is_test(at + 1)).count()
}

fn has_code(source: &Source, line: usize) -> bool {
    source
        .tokens
        .binary_search_by_key(&line, |token| token.line)
        .is_ok()
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
    fn large_files_are_found_and_tests_do_not_count() {
        let code = "fn f() {}\n// why\n\n".repeat(251);
        let found = facts("saga/src/timer.rs", &code);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("502 lines"), "{}", found[0]);
        assert_eq!(
            facts("saga/src/timer.rs", &code[..code.len() - 38]),
            [""; 0]
        );

        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(facts("saga/src/timer.rs", &tests), [""; 0]);
        assert_eq!(facts("tests/it/a.rs", &code), [""; 0]);
    }

    #[test]
    fn long_functions_are_found_at_their_first_line() {
        let body = "x();\n".repeat(69);
        let long = format!("\nfn long() {{\n{body}}}");
        let found = facts("saga/src/timer.rs", &long);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("saga/src/timer.rs:2: `long` has 71 lines"),
            "{}",
            found[0]
        );
        assert_eq!(
            facts("saga/src/timer.rs", &long.replacen("x();\n", "", 1)),
            [""; 0]
        );
        assert_eq!(facts("tests/it/a.rs", &long), [""; 0]);
    }
}
