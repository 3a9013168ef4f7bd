//! How tests are written: none is switched off, none expects a panic, none waits by the clock.

use super::finding::{Allowed, Finding, allows};
use super::source::Source;

/// Tests that may sleep, each with the reason why no signal can be waited for.
const MAY_SLEEP: &[Allowed] = &[Allowed {
    path: "tests/it/killed/",
    why: "looks, with a deadline, for the end of a killed process and for rows it wrote",
}];

/// Finds `#[ignore]`, `#[should_panic]`, examples that are not compiled, and sleeping tests.
pub(crate) fn look(source: &Source) -> Vec<Finding> {
    let mut found = switched_off(source);
    found.extend(ignored_examples(source));
    if !allows(MAY_SLEEP, &source.path) {
        found.extend(sleeping(source));
    }
    found
}

fn switched_off(source: &Source) -> Vec<Finding> {
    let remedies = [
        ("ignore", "make it pass, or delete it"),
        ("should_panic", "return an error and assert on it"),
    ];
    let mut found = Vec::new();
    for attribute in source.attributes() {
        for at in attribute.inside.clone() {
            // The name of the attribute, or what `cfg_attr(.., here)` puts in its place.
            let is_name = at == attribute.inside.start
                || (source.word(attribute.inside.start) == "cfg_attr"
                    && source.word(at - 1) == ",");
            let remedy = remedies.iter().find(|(name, _)| *name == source.word(at));
            if let (true, Some((name, remedy))) = (is_name, remedy) {
                found.push(Finding::at(source, at, format!("`#[{name}]`"), *remedy));
            }
        }
    }
    found
}

/// Fences of documentation examples that rustdoc skips.
fn ignored_examples(source: &Source) -> Vec<Finding> {
    let is_ignored = |line: &str| {
        let doc = line.trim_start();
        let doc = doc.strip_prefix("///").or_else(|| doc.strip_prefix("//!"));
        let fence = doc.and_then(|doc| doc.trim_start().strip_prefix("```"));
        fence.is_some_and(|kinds| kinds.split(',').any(|kind| kind.trim() == "ignore"))
    };
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| is_ignored(line))
        .map(|(at, _)| Finding {
            path: source.path.clone(),
            line: at + 1,
            fact: "an example that is not compiled".to_owned(),
            remedy: "make it compile (`no_run` where it must not run), or mark it `text`"
                .to_owned(),
        })
        .collect()
}

fn sleeping(source: &Source) -> Vec<Finding> {
    let paused = paused(source);
    (0..source.tokens.len())
        .filter(|at| source.is_test(*at) && !paused.iter().any(|range| range.contains(at)))
        .filter(|at| {
            let names = ["sleep", "sleep_until", "sleep_ms"];
            names.contains(&source.word(*at)) && source.word(at + 1) == "("
        })
        .filter(|at| source.word(at.saturating_sub(1)) != "fn")
        .map(|at| {
            let fact = format!("a test calls `{}`", source.word(at));
            Finding::at(source, at, fact, "wait for a signal, or pause tokio's time")
        })
        .collect()
}

/// Functions whose time is tokio's and paused: sleeping there takes none.
fn paused(source: &Source) -> Vec<std::ops::Range<usize>> {
    let by_attribute = source.attributes().into_iter().filter_map(|attribute| {
        let says = |at| source.word(at) == "start_paused";
        attribute.inside.clone().any(says).then_some(attribute.item)
    });
    let by_call = source.functions().into_iter().filter_map(|function| {
        let calls = |at| source.reads(at, &["time", ":", ":", "pause", "("]);
        function
            .tokens
            .clone()
            .any(calls)
            .then_some(function.tokens)
    });
    by_attribute.chain(by_call).collect()
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
    fn tests_that_are_switched_off_or_expect_a_panic_are_found() {
        let samples = [
            ("#[test] #[ignore] fn t() {}", "`#[ignore]`"),
            ("#[test] #[ignore = \"slow\"] fn t() {}", "`#[ignore]`"),
            ("#[cfg_attr(windows, ignore)] fn t() {}", "`#[ignore]`"),
            (
                "#[should_panic(expected = \"x\")] fn t() {}",
                "`#[should_panic]`",
            ),
        ];
        for (text, fact) in samples {
            let found = facts("tests/it/a.rs", text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].contains(fact), "{}", found[0]);
        }
        assert_eq!(
            facts("tests/it/a.rs", "#[test] fn t() { ignore(should_panic) }"),
            [""; 0]
        );
    }

    #[test]
    fn examples_that_are_not_compiled_are_found() {
        let bad = "//! ```ignore\n//! x\n//! ```\n\n/// ```rust, ignore\nfn f() {}";
        let found = facts("saga/src/timer.rs", bad);
        assert_eq!(found.len(), 2);
        assert!(found[1].starts_with("saga/src/timer.rs:5: an example that is not compiled; "));
        let fine = "/// ```no_run\n/// ```text\n/// ```\n/// ignore\nlet x = \"```ignore\";";
        assert_eq!(facts("saga/src/timer.rs", fine), [""; 0]);
    }

    #[test]
    fn sleeping_tests_are_found_unless_time_is_paused() {
        let bad = "#[tokio::test] async fn t() { tokio::time::sleep(x).await; }";
        assert_eq!(facts("saga/src/timer.rs", bad).len(), 1);
        let fine = [
            "#[tokio::test(start_paused = true)] async fn t() { sleep(x).await }",
            "#[test] fn t() { tokio::time::pause(); sleep(x) }",
            "fn production() { sleep(x) }",
        ];
        for text in fine {
            assert_eq!(facts("saga/src/timer.rs", text), [""; 0], "{text}");
        }
        assert_eq!(
            facts("tests/it/a.rs", "fn helper() { thread::sleep(x) }").len(),
            1
        );
    }
}
