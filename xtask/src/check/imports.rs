//! Which paths a file uses, with the names that it imports written out: `Instant::now` is
//! `std::time::Instant::now` in one file and `tokio::time::Instant::now` in another.

use std::ops::Range;

use super::source::Source;

/// A path in the code or in a `use`, in full as far as the file itself tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsedPath {
    pub(crate) path: String,
    /// Index of its first token.
    pub(crate) at: usize,
}

/// `use path as name;` and where it holds.
#[derive(Debug)]
struct Import {
    name: String,
    path: Vec<String>,
    at: usize,
    scope: Range<usize>,
}

/// Every path of more than one word, every imported name, and every use of one, in order.
pub(crate) fn used_paths(source: &Source) -> Vec<UsedPath> {
    let scopes = scopes(source);
    let mut imports = Vec::new();
    let mut used = Vec::new();
    let mut skipped: Vec<Range<usize>> = Vec::new();
    for at in 0..source.tokens.len() {
        if source.word(at) == "use" && !matches!(source.word(at + 1), "<" | "") {
            let end = (at..source.tokens.len()).find(|at| source.word(*at) == ";");
            let scope = innermost(&scopes, at).unwrap_or(0..source.tokens.len());
            Tree {
                source,
                scope,
                found: &mut imports,
            }
            .branch(at + 1, &[]);
            skipped.push(at..end.unwrap_or(source.tokens.len()));
        }
    }
    for import in &imports {
        used.push(UsedPath {
            path: import.path.join("::"),
            at: import.at,
        });
    }
    let mut at = 0;
    while at < source.tokens.len() {
        if let Some(range) = skipped.iter().find(|range| range.contains(&at)) {
            at = range.end;
        } else if source.is_word(at) && !continues(source, at) {
            let (words, next) = path_at(source, at);
            if let Some(path) = in_full(&words, at, &imports) {
                used.push(UsedPath { path, at });
            }
            at = next;
        } else {
            at += 1;
        }
    }
    used.sort_by_key(|path| path.at);
    used
}

/// Whether the word at `at` belongs to a path that began before it, or is a field or method.
fn continues(source: &Source, at: usize) -> bool {
    at > 0
        && (source.word(at - 1) == "."
            || (at > 1 && source.reads(at - 2, &[":", ":"]) && at > 2 && source.is_word(at - 3)))
}

/// The words of the path at `at`, and the token after it.
fn path_at(source: &Source, at: usize) -> (Vec<&str>, usize) {
    let mut words = vec![source.word(at)];
    let mut next = at + 1;
    while source.reads(next, &[":", ":"]) && source.is_word(next + 2) {
        words.push(source.word(next + 2));
        next += 3;
    }
    (words, next)
}

/// The path with its first word replaced by what was imported under it, innermost scope first.
fn in_full(words: &[&str], at: usize, imports: &[Import]) -> Option<String> {
    let holds = |import: &&Import| import.name == words[0] && import.scope.contains(&at);
    let import = imports
        .iter()
        .filter(holds)
        .min_by_key(|import| import.scope.len());
    let mut full: Vec<&str> = match import {
        Some(import) => import.path.iter().map(String::as_str).collect(),
        None if words.len() > 1 => vec![words[0]],
        None => return None,
    };
    full.extend(&words[1..]);
    Some(full.join("::"))
}

/// Every `{..}`.
fn scopes(source: &Source) -> Vec<Range<usize>> {
    let open = (0..source.tokens.len()).filter(|at| source.word(*at) == "{");
    open.map(|at| at..source.closing(at)).collect()
}

fn innermost(scopes: &[Range<usize>], at: usize) -> Option<Range<usize>> {
    scopes
        .iter()
        .filter(|scope| scope.contains(&at))
        .min_by_key(|scope| scope.len())
        .cloned()
}

/// Reads the tree of one `use`.
struct Tree<'s> {
    source: &'s Source,
    scope: Range<usize>,
    found: &'s mut Vec<Import>,
}

impl Tree<'_> {
    /// Reads one branch under `before`; returns the token after it.
    fn branch(&mut self, start: usize, before: &[String]) -> usize {
        let mut path = before.to_vec();
        let mut at = start;
        loop {
            if self.source.word(at) == "{" {
                return self.branches(at, &path);
            }
            if self.source.is_word(at) {
                path.push(self.source.word(at).to_owned());
                at += 1;
            } else if self.source.reads(at, &[":", ":"]) {
                at += 2;
                continue;
            } else {
                // A glob, or something that is no `use` at all.
                return at + 1;
            }
            if self.source.word(at) == "as" {
                self.add(self.source.word(at + 1).to_owned(), path, start);
                return at + 2;
            }
            if !self.source.reads(at, &[":", ":"]) {
                if path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                let name = path.last().cloned().unwrap_or_default();
                self.add(name, path, start);
                return at;
            }
        }
    }

    fn branches(&mut self, open: usize, before: &[String]) -> usize {
        let close = self.source.closing(open);
        let mut at = open + 1;
        while at < close {
            at = self.branch(at, before).max(at + 1);
            if self.source.word(at) == "," {
                at += 1;
            }
        }
        close + 1
    }

    fn add(&mut self, name: String, path: Vec<String>, at: usize) {
        self.found.push(Import {
            name,
            path,
            at,
            scope: self.scope.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::of("a.rs", text);
        used_paths(&source)
            .into_iter()
            .map(|used| used.path)
            .collect()
    }

    #[test]
    fn imported_names_are_written_out() {
        let cases: &[(&str, &[&str])] = &[
            (
                "use std::time::Instant; fn f() { Instant::now(); }",
                &["std::time::Instant", "std::time::Instant::now"],
            ),
            (
                "use std::time::{self, Instant as I}; fn f() { I::now(); time::x() }",
                &[
                    "std::time",
                    "std::time::Instant",
                    "std::time::Instant::now",
                    "std::time::x",
                ],
            ),
            (
                "use a::{b::{c, d}, e}; fn f() { d(x.e()) }",
                &["a::b::c", "a::b::d", "a::e", "a::b::d"],
            ),
            ("use a::*; fn f() { g() }", &[]),
            ("fn f() { ::tokio::spawn(x) }", &["tokio::spawn"]),
            (
                "fn f() -> impl X + use<'a> { tokio::spawn::<T>(x) }",
                &["tokio::spawn"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(&paths(text), expected, "{text}");
        }
    }

    #[test]
    fn the_innermost_import_counts() {
        let text = "use tokio::time::Instant; fn f() { Instant::now() }\n\
                    mod m { use std::time::Instant; fn g() { Instant::now() } }";
        let now: Vec<_> = paths(text)
            .into_iter()
            .filter(|path| path.ends_with("now"))
            .collect();
        assert_eq!(
            now,
            ["tokio::time::Instant::now", "std::time::Instant::now"]
        );
    }
}
