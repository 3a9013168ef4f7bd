//! What runs for this work tree, written down so that a later command finds and ends it.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::owned::Owned;
use crate::fail::{Doing, Result};
use crate::workspace::{Workspace, cache_folder};

/// How a server was started, with what is needed to end it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// A container of this id.
    Docker { container: String },
    /// A process of ours from packages in the Debian 13 root folder.
    Debian13 { process: Option<Owned> },
    /// A process of ours from packages of this machine.
    Host { process: Option<Owned> },
}

/// One started service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) origin: Origin,
    /// The server's version as it tells it.
    pub(crate) version: String,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    /// The data folder as the machine sees it; deleted with the server.
    pub(crate) data: Option<PathBuf>,
    /// A word on the server's command line that no other process has.
    pub(crate) mark: String,
    /// Started by `services up`, so a test run does not stop it.
    pub(crate) kept: bool,
}

impl Record {
    /// In words, for `status`.
    pub(crate) fn describe(&self) -> String {
        match &self.origin {
            Origin::Docker { container } => {
                format!("{}, Docker container {container}", self.version)
            }
            Origin::Debian13 { process } => {
                format!(
                    "{}, Debian 13 root folder, {}",
                    self.version,
                    of(process.as_ref())
                )
            }
            Origin::Host { process } => {
                format!("{}, host packages, {}", self.version, of(process.as_ref()))
            }
        }
    }
}

fn of(process: Option<&Owned>) -> String {
    process.map_or_else(
        || "starting".to_owned(),
        |process| format!("process {}", process.pid),
    )
}

/// The records of one work tree.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Opens (and makes) the folder of this work tree.
    pub(crate) fn open(workspace: &Workspace) -> Result<Self> {
        let folder = cache_folder()?.join("services").join(workspace.tree_name());
        fs::create_dir_all(&folder).doing(format!("make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// A file in the folder: locks and logs.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What was written for this service; an unreadable file counts as none.
    pub(crate) fn load(&self, kind: Kind) -> Option<Record> {
        let text = fs::read_to_string(self.path(kind)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes a record; a reader sees the old one or the new one, never half of it.
    pub(crate) fn save(&self, kind: Kind, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record).doing("write a service record")?;
        let draft = self.folder.join(format!("{}.draft", kind.name()));
        fs::write(&draft, text).doing(format!("write {}", draft.display()))?;
        fs::rename(&draft, self.path(kind)).doing(format!("write {}", self.path(kind).display()))
    }

    /// Forgets a service that no longer runs.
    pub(crate) fn remove(&self, kind: Kind) -> Result<()> {
        match fs::remove_file(self.path(kind)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(format!("delete {}", self.path(kind).display()))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.folder.join(format!("{}.json", kind.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip_and_removal_is_repeatable() {
        let folder = std::env::temp_dir().join(format!("xtask-records-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let records = Records {
            folder: folder.clone(),
        };
        let record = Record {
            origin: Origin::Host {
                process: Some(Owned { pid: 7, started: 9 }),
            },
            version: "PostgreSQL 15.18".into(),
            port: 4000,
            data: Some(PathBuf::from("/x")),
            mark: "sagabus-main-1".into(),
            kept: true,
        };
        assert_eq!(records.load(Kind::Postgres), None);
        records.save(Kind::Postgres, &record).unwrap();
        assert_eq!(records.load(Kind::Postgres), Some(record));
        records.remove(Kind::Postgres).unwrap();
        records.remove(Kind::Postgres).unwrap();
        assert_eq!(records.load(Kind::Postgres), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
