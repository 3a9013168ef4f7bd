//! Which database, from a URL or a path.

use std::sync::Arc;

use sagabus_core::Store;
use sagabus_core::admin::StoreAdmin;
#[cfg(feature = "postgres")]
use sagabus_outbox::PgStore;
#[cfg(feature = "sqlite")]
use sagabus_outbox::SqliteStore;

use crate::failure::Failure;

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("the command line opens databases: enable the feature `sqlite` or `postgres`");

/// An open database.
pub(crate) enum Place {
    #[cfg(feature = "postgres")]
    Postgres(PgStore),
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteStore),
}

/// What a text names.
enum Named<'a> {
    #[cfg(feature = "postgres")]
    Postgres(&'a str),
    #[cfg(feature = "sqlite")]
    Sqlite(&'a str),
}

impl Place {
    /// Opens a database that exists. Makes none: a slip of the pen would look like an empty one.
    pub(crate) async fn open(store: Option<&str>) -> Result<Self, Failure> {
        match named(store)? {
            #[cfg(feature = "postgres")]
            Named::Postgres(url) => Ok(Self::Postgres(PgStore::connect(url).await?)),
            #[cfg(feature = "sqlite")]
            Named::Sqlite(path) if std::path::Path::new(path).is_file() => {
                Ok(Self::Sqlite(SqliteStore::open(path).await?))
            }
            #[cfg(feature = "sqlite")]
            Named::Sqlite(path) => Err(sagabus_core::StoreError::Setup(format!(
                "there is no file `{path}`; give the path of the service's database, or make a \
                 new one with `sagabus schema migrate` [SB0303]"
            ))
            .into()),
        }
    }

    /// Opens a database, and makes the file where it is one and not there.
    pub(crate) async fn open_or_make(store: Option<&str>) -> Result<Self, Failure> {
        match named(store)? {
            #[cfg(feature = "postgres")]
            Named::Postgres(url) => Ok(Self::Postgres(PgStore::connect(url).await?)),
            #[cfg(feature = "sqlite")]
            Named::Sqlite(path) => Ok(Self::Sqlite(SqliteStore::open(path).await?)),
        }
    }

    /// Returns the statements of every migration for the kind of database that is named.
    pub(crate) fn migrations(
        store: Option<&str>,
    ) -> Result<&'static [(i32, &'static str)], Failure> {
        Ok(match named(store)? {
            #[cfg(feature = "postgres")]
            Named::Postgres(_) => PgStore::migrations(),
            #[cfg(feature = "sqlite")]
            Named::Sqlite(_) => SqliteStore::migrations(),
        })
    }

    /// Returns the statements that make a role of the database for each role of this program.
    pub(crate) fn grants(store: Option<&str>) -> Result<&'static str, Failure> {
        match named(store)? {
            Named::Postgres(_) => Ok(PgStore::grants()),
            Named::Sqlite(_) => Err(Failure::Usage(
                "a SQLite file has no roles: who may write the file may do everything in it [SB0308]"
                    .to_owned(),
            )),
        }
    }

    pub(crate) async fn migrate(&self) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.migrate().await?,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(store) => store.migrate().await?,
        }
        Ok(())
    }

    pub(crate) fn admin(&self) -> &dyn StoreAdmin {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(store) => store,
        }
    }

    /// Returns it as the database of a host.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(store) => Arc::new(store.clone()),
        }
    }
}

/// Says whether a text names a database, and opens nothing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(store: Option<&str>) -> Result<(), Failure> {
    named(store).map(|_| ())
}

/// Says whether a URL has a password in it.
pub(crate) fn holds_password(store: &str) -> bool {
    let Some((_, rest)) = store.split_once("://") else {
        return false;
    };
    let login = rest.rsplit_once('@').map(|(login, _)| login);
    login.is_some_and(|login| login.contains(':')) || rest.contains("password=")
}

/// Tells a URL from a path. The text is not repeated in errors: it may hold a password.
fn named(store: Option<&str>) -> Result<Named<'_>, Failure> {
    let Some(store) = store.filter(|store| !store.is_empty()) else {
        return Err(Failure::Usage(
            "which database? give `--store`, or set SAGABUS_STORE, or write `store` into \
             `sagabus.toml`: a SQLite file, or postgres://user:password@host/database [SB0301]"
                .to_owned(),
        ));
    };
    if store.starts_with("postgres://") || store.starts_with("postgresql://") {
        #[cfg(feature = "postgres")]
        return Ok(Named::Postgres(store));
        #[cfg(not(feature = "postgres"))]
        return Err(not_built_in("postgres"));
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
    #[cfg(feature = "sqlite")]
    return Ok(Named::Sqlite(path));
    #[cfg(not(feature = "sqlite"))]
    return Err(not_built_in("sqlite"));
}

#[cfg(not(all(feature = "postgres", feature = "sqlite")))]
fn not_built_in(engine: &str) -> Failure {
    Failure::Usage(format!(
        "this program was built without {engine}; enable the feature `{engine}` [SB0308]"
    ))
}
