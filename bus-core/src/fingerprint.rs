//! What failures have in common.

use crate::unit_of_work::{Attempt, Reason};

/// Names the kind of a failure: equal for errors that differ in numbers and identities only.
pub fn fingerprint(reason: Reason, attempts: &[Attempt]) -> String {
    let text = reason.as_str().to_owned();
    match attempts.last() {
        Some(last) => with_kind(text + ": ", &last.error),
        None => text,
    }
}

/// Names the kind of an error alone.
pub(crate) fn kind_of(error: &str) -> String {
    with_kind(String::new(), error)
}

fn with_kind(mut text: String, error: &str) -> String {
    /// Long enough to tell errors apart, short enough for a table of groups.
    const CHARS_MAX: usize = 160;
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut rest = error;
    while let Some(first) = rest.chars().next().filter(|_| text.len() < CHARS_MAX) {
        let end = match is_part(first) {
            true => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        // A word with a digit in it is a number, an identity or an address.
        match word.contains(|c: char| c.is_ascii_digit()) {
            true => text.push('#'),
            false => text.push_str(&word.replace('\0', "#")),
        }
        rest = after;
    }
    let cut = text.floor_char_boundary(CHARS_MAX);
    text.truncate(cut);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn failed_with(error: &str) -> Vec<Attempt> {
        vec![Attempt {
            at: Timestamp::from_micros(1),
            host: "host".into(),
            error: error.into(),
            excused: 0,
        }]
    }

    #[test]
    fn errors_that_differ_in_numbers_and_identities_have_one_fingerprint() {
        let one = failed_with("order 4711 of 018f4e5a-0000-7000-8000-000000000001: declined");
        let two = failed_with("order 9 of 118f4e5a-0000-7000-8000-00000000000a: declined");
        let name = fingerprint(Reason::Terminal, &one);
        assert_eq!(name, "terminal: order # of #: declined");
        assert_eq!(name, fingerprint(Reason::Terminal, &two));
        assert_ne!(name, fingerprint(Reason::AttemptsExhausted, &one));
        assert_ne!(
            name,
            fingerprint(Reason::Terminal, &failed_with("out of money"))
        );
    }

    #[test]
    fn a_fingerprint_is_short_and_cut_between_characters() {
        let name = fingerprint(Reason::Terminal, &failed_with(&"ä ".repeat(5000)));
        assert!(name.len() <= 160);
        assert_eq!(
            fingerprint(Reason::Terminal, &failed_with("a\0b")),
            "terminal: a#b"
        );
    }
}
