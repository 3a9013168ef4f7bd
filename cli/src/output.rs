//! Answers on standard output: JSON, or tables and lines for people.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;
use crate::text::{cut, safe, safe_json, safe_lines};

/// The widest column of a table, but the last: two of them and some narrow ones fit a line.
const COLUMN_CHARS_MAX: usize = 40;
/// The widest last column, which holds what is long: an error, a fingerprint.
const LAST_CHARS_MAX: usize = 160;

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Tables and lines, for people.
    #[default]
    Table,
    /// One document, whole.
    Json,
    /// Each element of the document's list on a line of its own.
    Ndjson,
}

/// How answers are given.
pub(crate) struct Output {
    form: Form,
}

impl Output {
    pub(crate) fn new(form: Form) -> Self {
        Self { form }
    }

    /// Prints the document where JSON is wanted, and says whether it was.
    pub(crate) fn json(&self, document: impl FnOnce() -> Value) -> Result<bool, Failure> {
        match self.form {
            Form::Table => return Ok(false),
            Form::Json => {
                let text = format!("{:#}", document());
                writeln!(io::stdout(), "{}", safe_json(&text))?;
            }
            Form::Ndjson => {
                let mut out = io::stdout().lock();
                for one in elements(document()) {
                    writeln!(out, "{}", safe_json(&one.to_string()))?;
                }
            }
        }
        Ok(true)
    }

    /// Says whether people read it.
    pub(crate) fn is_for_people(&self) -> bool {
        self.form == Form::Table
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        writeln!(io::stdout(), "{}", safe(text))?;
        Ok(())
    }

    /// Prints a text as it is, line ends included.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        writeln!(io::stdout(), "{}", safe_lines(text))?;
        Ok(())
    }

    /// Prints a name and a value, or nothing where there is none.
    pub(crate) fn field(&self, name: &str, value: Option<&str>) -> Result<(), Failure> {
        match value {
            Some(value) => self.line(&format!("{name:<12} {value}")),
            None => Ok(()),
        }
    }

    /// Prints a table, or `empty` where it has no rows.
    pub(crate) fn table(
        &self,
        columns: &[&str],
        rows: &[Vec<String>],
        empty: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(empty);
        }
        let last = columns.len() - 1;
        let shown = |at: usize, cell: &str| {
            let chars_max = if at == last {
                LAST_CHARS_MAX
            } else {
                COLUMN_CHARS_MAX
            };
            cut(&safe(cell), chars_max)
        };
        let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
        let body = rows.iter().map(|row| {
            let cells = row.iter().enumerate();
            cells.map(|(at, cell)| shown(at, cell)).collect()
        });
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
        let width = |at: usize| {
            let cells = lines.iter().filter_map(|line| line.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let mut out = io::stdout().lock();
        for line in &lines {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    /// Prints a word to people beside the answer, on standard error.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", safe(text)); // The answer is what counts.
    }
}

/// Prints a word before there is an answer, on standard error.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", safe(text)); // As above.
}

/// Returns the elements of a document that is a list, with the number of its next page at most beside
/// it, or else the document.
fn elements(mut document: Value) -> Vec<Value> {
    if let Some(members) = document.as_object_mut() {
        let all = members.iter_mut().filter(|(name, _)| *name != "next");
        if let [Value::Array(list)] = &mut all.map(|(_, value)| value).collect::<Vec<_>>()[..] {
            return std::mem::take(list);
        }
    }
    vec![document]
}
