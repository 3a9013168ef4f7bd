//! `sagabus machines`.

use clap::ValueEnum;
use sagabus_core::Timestamp;
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::machines::{self, DescribedMachine};
use sagabus_ops::{OpsError, shape};
use sagabus_saga::machine::{dot, mermaid};
use serde_json::json;

use crate::arguments::MachinesVerb;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::ago;

/// In which language a machine is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drawing {
    // Mermaid, as Markdown pages show it.
    Mermaid,
    // Graphviz: `| dot -Tsvg`. Documented, both would make the help of one verb two screens long.
    Dot,
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &MachinesVerb,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        MachinesVerb::List => list(&machines::list(admin).await?, now, out),
        MachinesVerb::Show { name, format } => {
            show(&machines::find(admin, name).await?, *format, out)
        }
    }
}

/// Shows the machines of a release, which nobody need run.
pub(crate) fn show_release(
    found: &[DescribedMachine],
    verb: &MachinesVerb,
    out: &Output,
) -> Result<(), Failure> {
    let MachinesVerb::Show { name, format } = verb else {
        return list(found, Timestamp::from_micros(0), out);
    };
    let mut named = found.iter().filter(|one| one.name == *name);
    match named.next() {
        Some(one) => show(std::slice::from_ref(one), *format, out),
        None => Err(OpsError::NotFound(format!(
            "this program has no machine `{name}`; `machines list` shows those there are [SB0401]"
        ))
        .into()),
    }
}

fn list(found: &[DescribedMachine], now: Timestamp, out: &Output) -> Result<(), Failure> {
    let document = || json!({ "machines": found.iter().map(shape::machine).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let count = |list: &str| one.description[list].as_array().map_or(0, Vec::len);
            let latest = one.hosts.first();
            vec![
                one.name.clone(),
                one.endpoint.clone(),
                count("states").to_string(),
                count("transitions").to_string(),
                format!("{} of {}", one.alive, one.hosts.len()),
                latest.map_or_else(String::new, |host| ago(now, host.heartbeat_at)),
                latest.map_or_else(String::new, |host| host.name.clone()),
            ]
        })
        .collect();
    let columns = [
        "machine",
        "endpoint",
        "states",
        "transitions",
        "hosts alive",
        "heard",
        "host",
    ];
    out.table(&columns, &rows, "no host described a machine")
}

/// Draws what live hosts run, or what the last one ran.
fn show(found: &[DescribedMachine], drawing: Drawing, out: &Output) -> Result<(), Failure> {
    if out.json(|| json!({ "machines": found.iter().map(shape::machine).collect::<Vec<_>>() }))? {
        return Ok(());
    }
    let Some((first, others)) = found.split_first() else {
        return Ok(());
    };
    let text = match drawing {
        Drawing::Mermaid => mermaid(&first.description),
        Drawing::Dot => dot(&first.description),
    };
    out.text(text.trim_end())?;
    if first.alive == 0 && !first.hosts.is_empty() {
        out.note("no live host runs it: this is what the last one ran");
    }
    if others.iter().any(|one| one.alive > 0) {
        out.note("live hosts run other versions of it too; `--json` has them all");
    }
    Ok(())
}
