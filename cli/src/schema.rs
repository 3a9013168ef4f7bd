//! `sagabus schema`.

use clap::Subcommand;
use sagabus_ops::Role;
use serde_json::json;

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
    role: Role,
    verb: &SchemaVerb,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        SchemaVerb::Migrate => migrate(store, role, out).await,
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

async fn migrate(store: Option<&str>, role: Role, out: &Output) -> Result<(), Failure> {
    role.demand(Role::Admin, "change the schema")?;
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

/// One that is missing, half there, older or newer is an error, which says what to do.
async fn status(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    let place = Place::open(store).await?;
    let version = place.admin().about().await?.schema_version;
    let migrations = Place::migrations(store)?;
    let needed = migrations.last().map(|(number, _)| *number);
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
