//! What a shop is made of: which database, which broker, one process or one per service.
//!
//! A folder is a shop. It says in `shop.json` how it was set up, so that nobody goes on with half
//! of it somewhere else, and has a name by which its things on shared servers are known.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use sagabus::MessageId;
use serde::{Deserialize, Serialize};

use crate::gateway;

/// A part of the shop that can be a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Orders,
    Payments,
    Shipping,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Orders, Self::Payments, Self::Shipping];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Shipping => "shipping",
        }
    }
}

/// Where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// What carries messages between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Carrier {
    Database,
    RabbitMq,
    Kafka,
}

/// How many processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Processes {
    One,
    OnePerService,
}

/// How a shop was set up, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) carrier: Carrier,
    pub(crate) processes: Processes,
}

impl Setup {
    /// What the demo is without any option, and was before there were others.
    const SIMPLEST: Self = Self {
        engine: Engine::Sqlite,
        carrier: Carrier::Database,
        processes: Processes::One,
    };
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.engine {
            Engine::Sqlite => "SQLite",
            Engine::Postgres => "PostgreSQL",
        })?;
        f.write_str(match self.carrier {
            Carrier::Database => ", no broker",
            Carrier::RabbitMq => ", RabbitMQ",
            Carrier::Kafka => ", Kafka",
        })?;
        f.write_str(match self.processes {
            Processes::One => ", one process",
            Processes::OnePerService => ", one process per service",
        })
    }
}

/// A folder with a shop in it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) setup: Setup,
    /// What its things on shared servers have in their names.
    pub(crate) id: String,
}

/// What `shop.json` says.
#[derive(Serialize, Deserialize)]
struct Sign {
    id: String,
    #[serde(flatten)]
    setup: Setup,
}

impl Site {
    /// Opens the folder's shop, or founds it.
    ///
    /// # Errors
    /// When the folder cannot be used, or has a shop that is set up otherwise.
    pub(crate) fn open(folder: &Path, wanted: Setup) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let site = match Self::find(folder)? {
            Some(site) => site,
            None => Self::found(folder, wanted)?,
        };
        if site.setup != wanted {
            bail!(
                "the shop in {} is made of: {}; and not of: {wanted}. Go on as it is, or choose \
                 another folder with --folder",
                folder.display(),
                site.setup
            );
        }
        Ok(site)
    }

    /// Returns the folder's shop, if there is one.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>> {
        let path = sign_in(folder);
        let Sign { id, setup } = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A shop of the time before there was a choice.
                let setup = Setup::SIMPLEST;
                let (folder, id) = (folder.to_owned(), String::new());
                let site = Self { folder, setup, id };
                return Ok(site.database_file(None).exists().then_some(site));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let folder = folder.to_owned();
        Ok(Some(Self { folder, setup, id }))
    }

    /// Three processes may be started at once: the first one founds the shop, all read the same.
    fn found(folder: &Path, setup: Setup) -> Result<Self> {
        let id = MessageId::new().as_uuid().simple().to_string();
        // The end of it is chance; eight digits tell the shops of one server apart.
        let id = id[id.len() - 8..].to_owned();
        let (path, draft) = (sign_in(folder), folder.join(format!("shop-{id}.draft")));
        let mut file = std::fs::File::create(&draft)
            .with_context(|| format!("cannot write {}", draft.display()))?;
        file.write_all(&serde_json::to_vec_pretty(&Sign { id, setup })?)?;
        file.sync_all()?;
        // Unlike a renamed file, a link never replaces what another process has just written.
        let linked = std::fs::hard_link(&draft, &path);
        std::fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", path.display()));
            }
            _ => {}
        }
        Self::find(folder)?.with_context(|| format!("{} is gone again", path.display()))
    }

    /// Returns the SQLite file of a service, or of the whole shop.
    pub(crate) fn database_file(&self, service: Option<Service>) -> PathBuf {
        let name = service.map_or("shop", Service::name);
        self.folder.join(format!("{name}.db"))
    }

    /// Returns the PostgreSQL database of a service, or of the whole shop.
    pub(crate) fn database_name(&self, service: Option<Service>) -> String {
        let name = service.map_or("shop", Service::name);
        format!("orders_demo_{}_{name}", self.id)
    }

    /// Says whose database a service uses: its own, where it has a process of its own.
    pub(crate) fn keeper(&self, service: Service) -> Option<Service> {
        match self.setup.processes {
            Processes::One => None,
            Processes::OnePerService => Some(service),
        }
    }
}

fn sign_in(folder: &Path) -> PathBuf {
    folder.join("shop.json")
}

/// Deletes the files that the demo makes, and only those.
///
/// # Errors
/// When the demo, or its gateway, is running in this folder, or a file cannot be deleted.
pub(crate) fn delete_files(folder: &Path, keep_gateway: bool) -> Result<()> {
    let of_gateway = gateway::file_in(folder);
    if !keep_gateway && let Ok(file) = std::fs::File::open(&of_gateway) {
        file.try_lock()
            .context("the demo, or its gateway, is running in this folder")?;
    }
    let mut files = vec![sign_in(folder)];
    for name in ["shop", "orders", "payments", "shipping"] {
        let beside = |suffix| folder.join(format!("{name}.db{suffix}"));
        files.extend(["", "-wal", "-shm"].map(beside));
    }
    if !keep_gateway {
        files.push(of_gateway);
    }
    for file in files {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
