//! Text that a terminal may be given, and ages that people read.

use std::fmt::Write as _;

use sagabus_core::Timestamp;

/// Says whether a character could move the cursor, change colours or the direction of writing, or
/// be taken for another one's absence.
fn is_unsafe(c: char) -> bool {
    let is_hidden = matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || is_hidden
}

/// Writes what a terminal would act on as `\u{1b}`. Messages are written by others.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            _ if is_unsafe(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c)); // A string takes everything.
            }
            _ => safe.push(c),
        }
    }
    safe
}

/// The same for a text of several lines: line ends stay.
pub(crate) fn safe_lines(text: &str) -> String {
    text.split('\n').map(safe).collect::<Vec<_>>().join("\n")
}

/// Escapes what JSON would leave alone and a terminal would act on. Only strings hold such.
pub(crate) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match is_unsafe(c) && c != '\n' {
            true => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c)); // A string takes everything.
            }
            false => safe.push(c),
        }
    }
    safe
}

/// Writes a value as one word of a command line that a shell reads.
pub(crate) fn word(value: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', r"'\''")),
    }
}

/// Cuts a text to so many characters.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => {
            let kept = text.chars().take(chars_max.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    }
}

/// Writes JSON over several lines, every name and number as it came: reading and writing it anew
/// would round large numbers and change the order of names.
pub(crate) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    };
    let mut left = json.chars().peekable();
    while let Some(c) = left.next() {
        if in_text {
            text.push(c);
            (in_text, is_escaped) = (c != '"' || is_escaped, c == '\\' && !is_escaped);
            continue;
        }
        match c {
            _ if c.is_ascii_whitespace() => {}
            '{' | '[' => {
                text.push(c);
                while left.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = left.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                    continue;
                }
                depth += 1;
                new_line(&mut text, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_text = c == '"';
                text.push(c);
            }
        }
    }
    text
}

/// Says how long ago something was. Clocks differ: what lies ahead was now.
pub(crate) fn ago(now: Timestamp, at: Timestamp) -> String {
    let seconds = now.as_micros().saturating_sub(at.as_micros()).max(0) / 1_000_000;
    match seconds {
        0..100 => format!("{seconds}s ago"),
        100..6_000 => format!("{}m ago", seconds / 60),
        6_000..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let hostile = "a\u{1b}[2Jb\r\u{9b}31m\u{202e}c\u{0}\u{7f}\n";
        let shown = safe(hostile);
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb\\u{d}\\u{9b}31m\\u{202e}c\\u{0}\\u{7f}\\n"
        );
        assert_eq!(safe_lines("a\n\u{1b}b"), "a\n\\u{1b}b");
        let json = serde_json::json!({ "x": hostile }).to_string();
        let escaped = safe_json(&json);
        assert!(!escaped.chars().any(is_unsafe), "{escaped}");
        let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read["x"], hostile);
    }

    #[test]
    fn a_value_is_one_word_for_a_shell() {
        for plain in ["order-1", "@payments", "room/12", "a=b", "ü"] {
            assert_eq!(word(plain), plain);
        }
        assert_eq!(word("room/12 A"), "'room/12 A'");
        assert_eq!(word("it's $(x)"), r"'it'\''s $(x)'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße", 4), "grü…");
        assert_eq!(cut("", 4), "");
    }

    #[test]
    fn json_is_indented_and_nothing_else() {
        let json =
            r#"{"z":123456789012345678901234567890,"a":[1.10,{}, [ ],"x\\\",{:"],"b":{"c":null}}"#;
        let wanted = r#"{
  "z": 123456789012345678901234567890,
  "a": [
    1.10,
    {},
    [],
    "x\\\",{:"
  ],
  "b": {
    "c": null
  }
}"#;
        assert_eq!(indented(json), wanted);
        assert_eq!(indented(wanted), wanted);
    }

    #[test]
    fn an_age_is_never_negative() {
        let at = Timestamp::from_micros;
        assert_eq!(ago(at(0), at(5_000_000)), "0s ago");
        assert_eq!(ago(at(7_200_000_000), at(0)), "2h ago");
        assert_eq!(ago(at(i64::MAX), at(i64::MIN)), "106751991d ago");
    }
}
