//! A Rust file as the guards see it: tokens, and which of them are test code.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::lexer::{self, Kind, Token};

/// A Rust file of this repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    /// For each token, whether it is test code.
    is_test: Vec<bool>,
}

/// An attribute: `#[..]` or `#![..]`.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    /// The tokens between the brackets.
    pub(crate) inside: Range<usize>,
    /// The item that it belongs to, with the attribute itself.
    pub(crate) item: Range<usize>,
}

/// What ends an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// `use`, `const` and the like: only a semicolon.
    Semicolon,
    /// Functions, types and modules: their braces, or a semicolon.
    Brace,
    /// A field, a variant or an arm.
    Comma,
}

/// A function with a body.
#[derive(Debug)]
pub(crate) struct Function<'s> {
    pub(crate) name: &'s str,
    /// From `fn` to the closing brace.
    pub(crate) tokens: Range<usize>,
}

impl Source {
    /// Reads a text as the file of this path.
    pub(crate) fn of(path: &str, text: &str) -> Self {
        let tokens = lexer::tokens(text);
        let is_test = vec![is_test_path(path); tokens.len()];
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            is_test,
        };
        for attribute in source.attributes() {
            if source.marks_test(&attribute) {
                source.is_test[attribute.item].fill(true);
            }
        }
        source
    }

    /// The text of a token; nothing past the end.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.tokens
            .get(at)
            .map_or("", |token| &self.text[token.start..token.end])
    }

    /// Whether the tokens from `at` read so.
    pub(crate) fn reads(&self, at: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.word(at + offset) == *word)
    }

    pub(crate) fn is_word(&self, at: usize) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| token.kind == Kind::Word)
    }

    pub(crate) fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(1, |token| token.line)
    }

    pub(crate) fn is_test(&self, at: usize) -> bool {
        self.is_test.get(at).copied().unwrap_or(false)
    }

    /// All of it is test code, because another file says so.
    pub(crate) fn mark_as_test(&mut self) {
        self.is_test.fill(true);
    }

    /// Every attribute, in order.
    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        for at in 0..self.tokens.len() {
            let is_inner = self.reads(at, &["#", "!", "["]);
            if !is_inner && !self.reads(at, &["#", "["]) {
                continue;
            }
            let open = if is_inner { at + 2 } else { at + 1 };
            let close = self.closing(open);
            let item = if is_inner {
                0..self.tokens.len()
            } else {
                at..self.item_end(close + 1)
            };
            attributes.push(Attribute {
                inside: open + 1..close,
                item,
            });
        }
        attributes
    }

    /// Every function with a body, outer before inner.
    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for at in 0..self.tokens.len() {
            if self.word(at) != "fn" || !self.is_word(at + 1) {
                continue;
            }
            let mut body = at + 2;
            while body < self.tokens.len() && !matches!(self.word(body), "{" | ";") {
                body = if is_open(self.word(body)) {
                    self.closing(body) + 1
                } else {
                    body + 1
                };
            }
            if self.word(body) == "{" {
                let tokens = at..self.closing(body) + 1;
                functions.push(Function {
                    name: self.word(at + 1),
                    tokens,
                });
            }
        }
        functions
    }

    /// The bracket that closes the one at `open`; the last token where there is none.
    pub(crate) fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            if is_open(self.word(at)) {
                depth += 1;
            } else if is_close(self.word(at)) {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
        }
        self.tokens.len().saturating_sub(1)
    }

    /// Files that this one declares as test modules: `#[cfg(test)] mod name;`.
    pub(crate) fn test_modules(&self) -> Vec<PathBuf> {
        let path = Path::new(&self.path);
        let stem = path
            .file_stem()
            .map_or("", |stem| stem.to_str().unwrap_or(""));
        let parent = path.parent().unwrap_or(Path::new(""));
        let folder = match stem {
            "lib" | "main" | "mod" => parent.to_owned(),
            _ => parent.join(stem),
        };
        let tests = self
            .attributes()
            .into_iter()
            .filter(|attribute| self.marks_test(attribute));
        tests
            .filter_map(|attribute| {
                let at = self.past_attributes(attribute.inside.end + 1);
                self.reads(at, &["mod", self.word(at + 1), ";"])
                    .then(|| folder.join(self.word(at + 1)))
            })
            .collect()
    }

    /// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, ..))]`; not `not(test)`.
    fn marks_test(&self, attribute: &Attribute) -> bool {
        let Range { start, end } = attribute.inside;
        let path = start
            + (start..end)
                .take_while(|at| !self.reads(*at, &["("]))
                .count();
        if self.word(start) != "cfg" {
            return path > start && self.word(path - 1) == "test";
        }
        (start..end).any(|at| {
            let stands_alone = matches!(self.word(at + 1), "," | ")");
            self.word(at) == "test" && stands_alone && !self.reads(at.saturating_sub(2), &["not"])
        })
    }

    fn past_attributes(&self, mut at: usize) -> usize {
        while self.reads(at, &["#", "["]) {
            at = self.closing(at + 1) + 1;
        }
        at
    }

    /// The token after the item that begins at `at`.
    fn item_end(&self, at: usize) -> usize {
        let at = self.past_attributes(at);
        let ending = self.ending(at);
        let mut at = at;
        while at < self.tokens.len() {
            let word = self.word(at);
            if is_close(word) {
                // The end of what the item stands in.
                return at;
            }
            if word == ";" || (word == "," && ending == Ending::Comma) {
                return at + 1;
            }
            if is_open(word) {
                at = self.closing(at);
                if word == "{" && ending != Ending::Semicolon {
                    return at + 1;
                }
            }
            at += 1;
        }
        at
    }

    fn ending(&self, at: usize) -> Ending {
        let mut at = at;
        if self.word(at) == "pub" {
            at = if self.word(at + 1) == "(" {
                self.closing(at + 1) + 1
            } else {
                at + 1
            };
        }
        match self.word(at) {
            "const" if !matches!(self.word(at + 1), "fn" | "unsafe" | "async" | "extern") => {
                Ending::Semicolon
            }
            "use" | "static" | "let" | "type" => Ending::Semicolon,
            "const" | "fn" | "async" | "unsafe" | "extern" | "impl" | "struct" | "enum"
            | "union" | "trait" | "mod" | "macro_rules" => Ending::Brace,
            _ => Ending::Comma,
        }
    }
}

/// Whether a whole file is test code by its place.
pub(crate) fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

fn is_open(word: &str) -> bool {
    matches!(word, "(" | "[" | "{")
}

fn is_close(word: &str) -> bool {
    matches!(word, ")" | "]" | "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_words(text: &str) -> Vec<String> {
        let source = Source::of("bus-core/src/x.rs", text);
        let all = 0..source.tokens.len();
        all.filter(|at| source.is_test(*at) && source.is_word(*at))
            .map(|at| source.word(at).to_owned())
            .filter(|word| word.starts_with("inside"))
            .collect()
    }

    #[test]
    fn test_items_are_told_from_the_code_around_them() {
        let cases = [
            "fn out() {} #[cfg(test)] mod inside { fn inside_a() {} } fn out_b() {}",
            "#[test] fn inside() { inside_a(); } fn out() {}",
            "#[tokio::test(start_paused = true)] async fn inside() { inside_a() } fn out() {}",
            "#[cfg(test)] use x::{inside, inside_a}; use y::out;",
            "#[cfg(all(test, unix))] const INSIDE: [u8; 2] = { inside; inside_a }; fn out() {}",
            "#[test] #[allow(x)] fn inside() -> [u8; 1] { inside_a } fn out() {}",
            "#![cfg(test)] fn inside() {} fn inside_a() {}",
            "#[cfg(test)] const fn inside() { inside_a } fn out() {}",
            "#[cfg(test)] fn inside<A, const N: usize>(a: A) { inside_a } fn out() {}",
            "enum Out { A, #[cfg(test)] inside(inside_a), Other }",
        ];
        for text in cases {
            assert_eq!(test_words(text), ["inside", "inside_a"], "{text}");
        }
        let out = [
            "#[cfg(not(test))] fn inside() {}",
            "#[cfg(feature = \"test\")] fn inside() {}",
            "#[cfg_attr(x, test_case)] fn inside() {}",
        ];
        for text in out {
            assert_eq!(test_words(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn functions_are_found_with_their_bodies() {
        let text = "trait T { fn no_body(&self) -> [u8; 3]; }\nimpl T { fn outer(f: fn(u8)) {\n\
                    fn inner() {}\n} }";
        let source = Source::of("a.rs", text);
        let found: Vec<_> = source
            .functions()
            .iter()
            .map(|f| f.name.to_owned())
            .collect();
        assert_eq!(found, ["outer", "inner"]);
        let outer = &source.functions()[0].tokens;
        assert_eq!(
            (source.line(outer.start), source.line(outer.end - 1)),
            (2, 4)
        );
    }

    #[test]
    fn test_modules_in_other_files_are_named() {
        let text = "#[cfg(test)] mod cases; mod plain;";
        let modules = |path: &str| Source::of(path, text).test_modules();
        assert_eq!(modules("a/src/lib.rs"), [Path::new("a/src/cases")]);
        assert_eq!(modules("a/src/relay.rs"), [Path::new("a/src/relay/cases")]);
    }

    #[test]
    fn tests_are_known_by_their_place() {
        assert!(is_test_path("tests/it/main.rs"));
        assert!(is_test_path("outbox/tests/it/store.rs"));
        assert!(is_test_path("outbox/src/tests.rs"));
        assert!(!is_test_path("testkit/src/lib.rs"));
    }
}
