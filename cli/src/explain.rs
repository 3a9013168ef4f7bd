//! `sagabus explain`.

use sagabus_core::error::codes::{self, Explanation};
use sagabus_ops::OpsError;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;

/// Tells what a code stands for; without one, lists them. Needs no database.
pub(crate) fn run(code: Option<&str>, out: &Output) -> Result<(), Failure> {
    let Some(code) = code else {
        return list(out);
    };
    if code == "exit-codes" {
        return exit_codes(out);
    }
    let Some(one) = codes::explain(code) else {
        return Err(OpsError::NotFound(format!(
            "no error has the code `{code}`; `sagabus explain` lists those there are [SB0401]"
        ))
        .into());
    };
    if out.json(|| shape(one))? {
        return Ok(());
    }
    out.line(&format!("{}: {}", one.code, one.title))?;
    out.line("")?;
    out.line(one.why)?;
    out.line("")?;
    out.line(one.remedy)
}

/// What the codes of this program mean to scripts.
const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "done"),
    ("1", "failed, or refused because it would harm what runs"),
    (
        "2",
        "the arguments are wrong, or a change was not confirmed",
    ),
    ("3", "there is nothing by that id or name"),
    (
        "4",
        "the store cannot be used: no such file, not reachable, or a schema of another release",
    ),
    (
        "5",
        "a bulk change stopped half-way; what was done is done, and the same command goes on",
    ),
    (
        "6",
        "`doctor` found something to look at, `plan` something that the release could not go on \
         with, or `accounts` a message of which nothing is left",
    ),
];

fn exit_codes(out: &Output) -> Result<(), Failure> {
    let shape = |(code, means): &(&str, &str)| json!({ "code": code, "means": means });
    let document = || json!({ "exit_codes": EXIT_CODES.iter().map(shape).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let cells = |(code, means): &(&str, &str)| vec![(*code).to_owned(), (*means).to_owned()];
    let rows: Vec<_> = EXIT_CODES.iter().map(cells).collect();
    out.table(&["code", "means"], &rows, "")
}

fn list(out: &Output) -> Result<(), Failure> {
    let document = || json!({ "codes": codes::ALL.iter().map(shape).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let cells = |one: &Explanation| vec![one.code.to_owned(), one.title.to_owned()];
    let rows: Vec<_> = codes::ALL.iter().map(cells).collect();
    out.table(&["code", "what"], &rows, "")
}

fn shape(one: &Explanation) -> Value {
    json!({ "code": one.code, "title": one.title, "why": one.why, "remedy": one.remedy })
}
