//! Rust text as words with line numbers: enough to tell code from comments and strings.
//!
//! No types and no expansion of macros. The guards that need those are clippy's; these here hold
//! what clippy cannot be told.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; a raw one without its `r#`.
    Word,
    /// A string, character or number.
    Literal,
    /// `'a`
    Lifetime,
    /// One character of punctuation.
    Mark,
}

/// One token of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Where it is in the text, in bytes.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// All tokens of a text; comments and white space are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.at < text.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return;
        };
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = string(rest) {
            self.push(Kind::Literal, 0, length);
        } else if first == '\'' {
            self.quote(rest);
        } else if first.is_ascii_digit() {
            self.push(Kind::Literal, 0, number(rest));
        } else if is_word(first) {
            let raw = if raw_word(rest) { 2 } else { 0 };
            let length = rest[raw..]
                .find(|c| !is_word(c))
                .unwrap_or(rest.len() - raw);
            self.push(Kind::Word, raw, raw + length);
        } else {
            self.push(Kind::Mark, 0, first.len_utf8());
        }
    }

    /// A lifetime (`'a` with no quote after it) or a character.
    fn quote(&mut self, rest: &str) {
        let inner = &rest[1..];
        let name = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
        let closes = inner[name..].starts_with('\'');
        if name > 0 && !closes {
            self.push(Kind::Lifetime, 0, 1 + name);
        } else {
            self.push(Kind::Literal, 0, 1 + quoted(inner, '\''));
        }
    }

    fn push(&mut self, kind: Kind, from: usize, to: usize) {
        let (start, end) = (self.at + from, self.at + to);
        self.tokens.push(Token {
            kind,
            start,
            end,
            line: self.line,
        });
        self.skip(to);
    }

    fn skip(&mut self, length: usize) {
        let end = (self.at + length).min(self.text.len());
        self.line += self.text[self.at..end].matches('\n').count();
        self.at = end;
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn raw_word(rest: &str) -> bool {
    rest.starts_with("r#") && rest[2..].starts_with(is_word)
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a string or byte literal of any prefix at the start, if there is one.
fn string(rest: &str) -> Option<usize> {
    let prefixes = ["", "b", "c", "r", "br", "cr"];
    for prefix in prefixes {
        let Some(after) = rest.strip_prefix(prefix) else {
            continue;
        };
        if prefix.ends_with('r') {
            let hashes = after.len() - after.trim_start_matches('#').len();
            let Some(body) = after[hashes..].strip_prefix('"') else {
                continue;
            };
            let close = format!("\"{}", "#".repeat(hashes));
            let opened = prefix.len() + hashes + 1;
            return Some(
                body.find(&close)
                    .map_or(rest.len(), |end| opened + end + close.len()),
            );
        }
        if let Some(body) = after.strip_prefix('"') {
            return Some(prefix.len() + 1 + quoted(body, '"'));
        }
    }
    let body = rest.strip_prefix("b'")?;
    Some(2 + quoted(body, '\''))
}

/// The length up to and with the closing quote, past escaped ones.
fn quoted(body: &str, quote: char) -> usize {
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    body.len()
}

/// `1_000u32`, `0xff`, `1.5e-3`; in `1..2` and `1.max(2)` the dot is none of the number's.
fn number(rest: &str) -> usize {
    let word = |from: usize| {
        rest[from..]
            .find(|c| !is_word(c))
            .map_or(rest.len(), |length| from + length)
    };
    let mut end = word(0);
    if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        end = word(end + 1);
    }
    let exponent = rest[..end].ends_with(['e', 'E']) && !rest.starts_with("0x");
    if exponent && rest[end..].starts_with(['-', '+']) {
        end = word(end + 1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text)
            .iter()
            .map(|token| &text[token.start..token.end])
            .collect()
    }

    #[test]
    fn comments_and_strings_hide_their_words() {
        let cases: &[(&str, &[&str])] = &[
            ("a // b\nc", &["a", "c"]),
            ("a /* b /* c */ d */ e", &["a", "e"]),
            (r#"a "b \" c" d"#, &["a", r#""b \" c""#, "d"]),
            (r###"r#"a " b"# c"###, &[r###"r#"a " b"#"###, "c"]),
            (
                r#"b"x" c"y" br"z\" d"#,
                &[r#"b"x""#, r#"c"y""#, r#"br"z\""#, "d"],
            ),
            (
                "'a' 'b '\\'' b'\\'' c",
                &["'a'", "'b", "'\\''", "b'\\''", "c"],
            ),
            ("'é' x", &["'é'", "x"]),
        ];
        for (text, expected) in cases {
            assert_eq!(&words(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_end_where_methods_and_ranges_begin() {
        let cases: &[(&str, &[&str])] = &[
            ("1.max(2)", &["1", ".", "max", "(", "2", ")"]),
            ("0..10", &["0", ".", ".", "10"]),
            ("1.5e-3 + 0xfe-1", &["1.5e-3", "+", "0xfe", "-", "1"]),
            ("1_000u32", &["1_000u32"]),
        ];
        for (text, expected) in cases {
            assert_eq!(&words(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let text = "a\n/* \n */ b \"\n\" c\nr#type";
        let lines: Vec<_> = tokens(text).iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4, 5]);
        assert_eq!(words("r#type"), ["type"]);
    }
}
