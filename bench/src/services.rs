//! Databases: a new one for each run, made from a template that is filled once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sagabus_core::Store;
use sagabus_core::store::{Counts, StoreAdmin};
use sagabus_outbox::{PgConfig, PgStore, SqliteStore};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::sync::Mutex;

use crate::calibration::median;
use crate::machine;

/// Names the server on which the bench makes its databases.
pub(crate) const URL: &str = "SAGABUS_POSTGRES_URL";

/// Handlers' transactions at once on PostgreSQL: as many as the bare programs have connections.
const TRANSACTIONS: usize = 8;

/// The database of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum Backend {
    Postgres,
    Sqlite,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Sqlite => "SQLite",
        }
    }
}

/// What a template is filled with: for each engine, a name and statements.
#[derive(Clone, Debug)]
pub(crate) struct Filling {
    pub(crate) name: Cow<'static, str>,
    pub(crate) postgres: String,
    pub(crate) sqlite: String,
}

impl Filling {
    pub(crate) fn none() -> Self {
        Self {
            name: "empty".into(),
            postgres: String::new(),
            sqlite: String::new(),
        }
    }
}

/// The server, the folder and the templates.
#[derive(Debug)]
pub(crate) struct Services {
    server: Option<String>,
    folder: PathBuf,
    templates: Mutex<HashSet<(Backend, Cow<'static, str>)>>,
    made: AtomicU64,
}

impl Services {
    /// Finds the server, if one is named, and makes a folder on the disk of the results.
    pub(crate) fn open(results: &Path) -> Result<Self> {
        let folder = results.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        Ok(Self {
            server: std::env::var(URL).ok(),
            folder,
            templates: Mutex::default(),
            made: AtomicU64::new(0),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn has(&self, backend: Backend) -> bool {
        backend == Backend::Sqlite || self.server.is_some()
    }

    /// Returns the server's version.
    pub(crate) async fn postgres_version(&self) -> Result<Option<String>> {
        let Some(server) = &self.server else {
            return Ok(None);
        };
        let mut connection = connect(server).await?;
        let version = sqlx::query_scalar("select current_setting('server_version')");
        Ok(Some(version.fetch_one(&mut connection).await?))
    }

    /// Returns what a round trip costs that asks for nothing, as the median of a few hundred.
    pub(crate) async fn ping_micros(&self) -> Result<Option<f64>> {
        const PINGS: usize = 300;
        let Some(server) = &self.server else {
            return Ok(None);
        };
        let mut connection = connect(server).await?;
        let mut micros = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let started = Instant::now();
            let one: i32 = sqlx::query_scalar("select 1")
                .fetch_one(&mut connection)
                .await?;
            ensure!(one == 1, "the server answers {one} when asked for 1");
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
        connection.close().await?;
        Ok(Some(median(micros)))
    }

    /// Makes a new database with our tables and the filling.
    pub(crate) async fn place(&self, backend: Backend, filling: &Filling) -> Result<Place> {
        let template = self.template(backend, filling).await?;
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let place = match backend {
            Backend::Postgres => {
                let name = format!("bench_{}_{n}", std::process::id());
                let make = format!("create database {name} template {template} strategy file_copy");
                self.on_server(&make).await?;
                let url = self.url(&name)?;
                Place::Postgres { url, name }
            }
            Backend::Sqlite => {
                let path = self.folder.join(format!("{n}.db"));
                std::fs::copy(&template, &path)?;
                Place::Sqlite { path }
            }
        };
        place.settle().await?;
        Ok(place)
    }

    /// Removes a database.
    pub(crate) async fn remove(&self, place: Place) -> Result<()> {
        match place {
            Place::Postgres { name, .. } => {
                let drop = format!("drop database if exists {name} with (force)");
                self.on_server(&drop).await
            }
            Place::Sqlite { path } => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut name = path.clone().into_os_string();
                    name.push(suffix);
                    // The log and the index are gone where the last connection was closed.
                    let _ = std::fs::remove_file(name);
                }
                Ok(())
            }
        }
    }

    /// Removes the templates and the folder.
    pub(crate) async fn close(&self) -> Result<()> {
        for (backend, name) in self.templates.lock().await.iter() {
            if *backend == Backend::Postgres {
                let drop = format!("drop database if exists {} with (force)", template(name));
                self.on_server(&drop).await?;
            }
        }
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }

    /// Returns the template's name or path, filled at first use.
    async fn template(&self, backend: Backend, filling: &Filling) -> Result<String> {
        let mut templates = self.templates.lock().await;
        let place = match backend {
            Backend::Postgres => {
                let name = template(&filling.name);
                Place::Postgres {
                    url: self.url(&name)?,
                    name,
                }
            }
            Backend::Sqlite => Place::Sqlite {
                path: self.folder.join(format!("{}.db", template(&filling.name))),
            },
        };
        if templates.insert((backend, filling.name.clone())) {
            if let Place::Postgres { name, .. } = &place {
                self.on_server(&format!("create database {name}")).await?;
            }
            place.fill(filling).await?;
        }
        Ok(match place {
            Place::Postgres { name, .. } => name,
            Place::Sqlite { path } => path.display().to_string(),
        })
    }

    async fn on_server(&self, sql: &str) -> Result<()> {
        let Some(server) = &self.server else {
            bail!("{URL} is not set");
        };
        let mut connection = connect(server).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    fn url(&self, database: &str) -> Result<String> {
        let server = self.server.as_deref();
        let server = server.with_context(|| format!("{URL} is not set"))?;
        let at = server.find('?').unwrap_or(server.len());
        let (place, settings) = server.split_at(at);
        let slash = place.rfind('/').context("the URL has no database")?;
        Ok(format!("{}/{database}{settings}", &place[..slash]))
    }
}

fn template(name: &str) -> String {
    format!("bench_{}_template_{name}", std::process::id())
}

async fn connect(url: &str) -> Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.disable_statement_logging().connect().await?)
}

/// A database for one run.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Postgres { url: String, name: String },
    Sqlite { path: PathBuf },
}

/// A store on it, with what is read afterwards.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) admin: Arc<dyn StoreAdmin>,
}

impl Place {
    /// Opens our store.
    pub(crate) async fn open(&self) -> Result<Opened> {
        Ok(match self {
            Self::Postgres { url, .. } => {
                let config = PgConfig {
                    tx_connections_max: TRANSACTIONS,
                    ..PgConfig::new(url)?
                };
                let store = PgStore::connect_with(config).await?;
                Opened {
                    store: Arc::new(store.clone()),
                    admin: Arc::new(store),
                }
            }
            Self::Sqlite { path } => {
                let store = SqliteStore::open(path).await?;
                Opened {
                    store: Arc::new(store.clone()),
                    admin: Arc::new(store),
                }
            }
        })
    }

    /// Opens a connection for statements of our own to PostgreSQL.
    pub(crate) async fn postgres(&self) -> Result<PgConnection> {
        match self {
            Self::Postgres { url, .. } => connect(url).await,
            Self::Sqlite { .. } => bail!("this row is for PostgreSQL"),
        }
    }

    /// Opens a connection for statements of our own to SQLite, as durable as the store's.
    pub(crate) async fn sqlite(&self) -> Result<SqliteConnection> {
        let Self::Sqlite { path } = self else {
            bail!("this row is for SQLite");
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(256)
            .disable_statement_logging();
        Ok(options.connect().await?)
    }

    /// Runs statements of our own.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres { .. } => {
                let mut connection = self.postgres().await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await?;
            }
            Self::Sqlite { .. } => {
                let mut connection = self.sqlite().await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await?;
            }
        }
        Ok(())
    }

    /// Reads one number.
    pub(crate) async fn number(&self, sql: &'static str) -> Result<i64> {
        Ok(match self {
            Self::Postgres { .. } => {
                let mut connection = self.postgres().await?;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await?
            }
            Self::Sqlite { .. } => {
                let mut connection = self.sqlite().await?;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await?
            }
        })
    }

    /// Returns how many bytes of log were written so far: by the server, or by this process.
    pub(crate) async fn bytes(&self) -> Result<Option<u64>> {
        match self {
            Self::Postgres { .. } => {
                let written = "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint";
                Ok(u64::try_from(self.number(written).await?).ok())
            }
            Self::Sqlite { .. } => Ok(machine::bytes_written()),
        }
    }

    /// Returns the processor time that the server's processes for this database used so far.
    pub(crate) async fn server_cpu(&self) -> Result<Option<Duration>> {
        if let Self::Sqlite { .. } = self {
            return Ok(None);
        }
        let mut connection = self.postgres().await?;
        let pids = "select pid from pg_stat_activity where datname = current_database()";
        let pids: Vec<i32> = sqlx::query_scalar(pids).fetch_all(&mut connection).await?;
        connection.close().await?;
        let times = pids.into_iter().map(machine::cpu_of_postgres);
        // One that has ended meanwhile was not part of a run: its connections stay open.
        let known: Vec<Duration> = times.flatten().collect();
        Ok((!known.is_empty()).then(|| known.iter().sum()))
    }

    /// Counts what matters, by the tables' own words.
    pub(crate) async fn counts(&self) -> Result<BTreeMap<String, i64>> {
        let opened = self.open().await?;
        let Counts {
            outbox,
            parked,
            inbox,
            running,
            completed,
            dead_letters,
            history,
        } = opened.admin.counts().await?;
        let named = [
            ("outbox", outbox),
            ("parked", parked),
            ("inbox", inbox),
            ("running", running),
            ("completed", completed),
            ("dead_letters", dead_letters),
            ("history", history),
        ];
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(named
            .into_iter()
            .map(|(name, n)| (name.to_owned(), count(n)))
            .collect())
    }

    async fn fill(&self, filling: &Filling) -> Result<()> {
        match self {
            Self::Postgres { url, .. } => {
                PgStore::connect(url).await?.migrate().await?;
                let sql = &filling.postgres;
                self.run(sql).await?;
                self.run("vacuum (analyze)").await
            }
            Self::Sqlite { path } => {
                let store = SqliteStore::open(path).await?;
                store.migrate().await?;
                store.close().await;
                self.run(&filling.sqlite).await?;
                self.run("analyze; pragma wal_checkpoint(truncate)").await
            }
        }
    }

    /// Lets nothing of what was before cost anything later.
    pub(crate) async fn settle(&self) -> Result<()> {
        match self {
            // Statistics came with the template.
            Self::Postgres { .. } => self.run("checkpoint").await,
            Self::Sqlite { .. } => self.run("pragma wal_checkpoint(truncate)").await,
        }
    }
}
