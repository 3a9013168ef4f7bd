//! `sagabus migrate`.

use sagabus_ops::Role;
use serde_json::json;

use crate::arguments::MigrateArguments;
use crate::failure::Failure;
use crate::output::Output;
use crate::place::Place;

pub(crate) async fn run(
    store: Option<&str>,
    role: Role,
    what: &MigrateArguments,
    out: &Output,
) -> Result<(), Failure> {
    if what.print {
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
        return Ok(());
    }
    if what.grants {
        let grants = Place::grants(store)?;
        return match out.json(|| json!({ "grants": grants }))? {
            true => Ok(()),
            false => out.text(grants),
        };
    }
    role.demand(Role::Admin, "change the schema")?;
    let place = Place::open_or_make(store).await?;
    place.migrate().await?;
    let about = place.admin().about().await?;
    let version = about.schema_version;
    if out.json(|| json!({ "schema_version": version }))? {
        return Ok(());
    }
    out.line(&format!("the schema is of version {version}"))
}
