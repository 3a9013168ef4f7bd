//! Which database, from a URL or a path.

use std::path::Path;

use sagabus_core::StoreError;
use sagabus_core::admin::StoreAdmin;
use sagabus_outbox::{PgStore, SqliteStore};

use crate::failure::Failure;

/// An open database.
pub(crate) enum Place {
    Postgres(PgStore),
    Sqlite(SqliteStore),
}

/// What a text names.
enum Named<'a> {
    Postgres(&'a str),
    Sqlite(&'a str),
}

impl Place {
    /// Opens a database that exists. Makes none: a slip of the pen would look like an empty one.
    pub(crate) async fn open(store: Option<&str>) -> Result<Self, Failure> {
        match named(store)? {
            Named::Postgres(url) => Ok(Self::Postgres(PgStore::connect(url).await?)),
            Named::Sqlite(path) if Path::new(path).is_file() => {
                Ok(Self::Sqlite(SqliteStore::open(path).await?))
            }
            Named::Sqlite(path) => Err(StoreError::Setup(format!(
                "there is no file `{path}`; give the path of the service's database, or make a \
                 new one with `sagabus migrate` [SB0303]"
            ))
            .into()),
        }
    }

    /// Opens a database, and makes the file where it is one and not there.
    pub(crate) async fn open_or_make(store: Option<&str>) -> Result<Self, Failure> {
        match named(store)? {
            Named::Postgres(url) => Ok(Self::Postgres(PgStore::connect(url).await?)),
            Named::Sqlite(path) => Ok(Self::Sqlite(SqliteStore::open(path).await?)),
        }
    }

    /// Returns the statements of every migration for the kind of database that is named.
    pub(crate) fn migrations(
        store: Option<&str>,
    ) -> Result<&'static [(i32, &'static str)], Failure> {
        Ok(match named(store)? {
            Named::Postgres(_) => PgStore::migrations(),
            Named::Sqlite(_) => SqliteStore::migrations(),
        })
    }

    pub(crate) async fn migrate(&self) -> Result<(), Failure> {
        match self {
            Self::Postgres(store) => store.migrate().await?,
            Self::Sqlite(store) => store.migrate().await?,
        }
        Ok(())
    }

    pub(crate) fn admin(&self) -> &dyn StoreAdmin {
        match self {
            Self::Postgres(store) => store,
            Self::Sqlite(store) => store,
        }
    }
}

/// Tells a URL from a path. The text is not repeated in errors: it may hold a password.
fn named(store: Option<&str>) -> Result<Named<'_>, Failure> {
    let Some(store) = store.filter(|store| !store.is_empty()) else {
        return Err(Failure::Usage(
            "which database? give `--store`, or set SAGABUS_STORE: a SQLite file, or \
             postgres://user:password@host/database [SB0301]"
                .to_owned(),
        ));
    };
    if store.starts_with("postgres://") || store.starts_with("postgresql://") {
        return Ok(Named::Postgres(store));
    }
    let path = store.strip_prefix("sqlite:").unwrap_or(store);
    let path = path.strip_prefix("//").unwrap_or(path);
    if let Some((scheme, _)) = path.split_once("://") {
        return Err(Failure::Usage(format!(
            "no store speaks `{}://`; give a SQLite file, or postgres://user:password@host/database \
             [SB0302]",
            scheme.chars().take(20).collect::<String>()
        )));
    }
    Ok(Named::Sqlite(path))
}
