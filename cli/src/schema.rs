//! `sagabus schema`.

use clap::Subcommand;
use sagabus_core::StoreError;
use sagabus_core::error::chain;
use sagabus_ops::{OpsError, Role};
use serde_json::json;

use crate::arguments::OperatorArguments;
use crate::failure::Failure;
use crate::gauge::Waiting;
use crate::output::Output;
use crate::place::Place;

/// What is done with the schema.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaVerb {
    /// Create it, or bring it to this release.
    Migrate,
    /// Say of which version it is, and what this release needs.
    Status,
    /// Print the statements, for those who run their own.
    Print,
    /// Print what makes a PostgreSQL role for each role of this program.
    Grants,
}

pub(crate) async fn run(
    store: Option<&str>,
    who: &OperatorArguments,
    verb: &SchemaVerb,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        SchemaVerb::Migrate => {
            who.role.demand(Role::Admin, "change the schema")?;
            match who.dry_run {
                true => preview(store, out).await,
                false => migrate(store, out).await,
            }
        }
        SchemaVerb::Status => status(store, out).await,
        SchemaVerb::Print => print(store, out),
        SchemaVerb::Grants => {
            let grants = Place::grants(store)?;
            match out.json(|| json!({ "grants": grants }))? {
                true => Ok(()),
                false => out.text(grants),
            }
        }
    }
}

async fn migrate(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    let place = Place::open_or_make(store).await?;
    let waiting = Waiting::new("migrating", out);
    place.migrate().await?;
    drop(waiting);
    let version = place.admin().about().await?.schema_version;
    if out.json(|| json!({ "schema_version": version }))? {
        return Ok(());
    }
    out.line(&format!("the schema is of version {version}"))
}

/// Says what a migration would begin from and lead to. What is wrong with the schema as it is, is
/// told by the words in which everything else refuses it.
async fn preview(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    let needed = needed(store)?;
    let (version, fact) = match version(store).await {
        Ok(version) => (Some(version), None),
        Err(Failure::Ops(OpsError::Store(error @ StoreError::Setup(_)))) => {
            (None, Some(chain(&error)))
        }
        Err(failure) => return Err(failure),
    };
    let document = || json!({ "schema_version": version, "needed": needed, "fact": fact });
    if out.json(|| json!({ "preview": document() }))? {
        return Ok(());
    }
    match &fact {
        None => out.line(&format!(
            "nothing would be changed: the schema is of version {needed}"
        )),
        Some(fact) => {
            out.line(&format!("would bring the schema to version {needed}; now:"))?;
            out.line(fact)
        }
    }
}

async fn version(store: Option<&str>) -> Result<i32, Failure> {
    let place = Place::open(store).await?;
    Ok(place.admin().about().await?.schema_version)
}

/// Returns the version that this release needs.
fn needed(store: Option<&str>) -> Result<i32, Failure> {
    let migrations = Place::migrations(store)?;
    Ok(migrations.last().map_or(0, |(number, _)| *number))
}

/// One that is missing, half there, older or newer is an error, which says what to do.
async fn status(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    let version = version(store).await?;
    let needed = needed(store)?;
    if out.json(|| json!({ "schema_version": version, "needed": needed }))? {
        return Ok(());
    }
    out.line(&format!(
        "the schema is of version {version}, as this release needs it"
    ))
}

fn print(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    let migrations = Place::migrations(store)?;
    let document = || {
        let all = migrations.iter();
        json!({ "migrations": all
            .map(|(number, sql)| json!({ "number": number, "sql": sql }))
            .collect::<Vec<_>>() })
    };
    if out.json(document)? {
        return Ok(());
    }
    for (number, sql) in migrations {
        out.text(&format!("-- migration {number}\nbegin;\n{sql}\ncommit;"))?;
    }
    Ok(())
}
