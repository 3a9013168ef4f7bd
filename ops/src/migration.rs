//! Instances that an older release stored, written anew by live hosts in the shape that they have.

use std::time::Duration;

use sagabus_core::InstanceId;
use sagabus_core::admin::{
    BATCH_MAX, Batch, InstanceFilter, Migrated, StoreAdmin, StoredHost, Task, Verdict,
};
use sagabus_core::unit_of_work::InstanceStatus;
use serde_json::Value;

use crate::errands::ask;
use crate::error::OpsError;
use crate::operator::Operator;
use crate::status::is_alive;

/// What is to be migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The kind of the instances.
    pub kind: String,
    /// The endpoint whose hosts write them.
    pub endpoint: String,
    /// The version of the data that these hosts have.
    pub to: i32,
    /// Running instances of older versions: version and how many, the oldest first.
    pub from: Vec<(i32, u64)>,
}

impl Migration {
    /// Returns how many instances are meant.
    pub fn count(&self) -> u64 {
        self.from.iter().map(|(_, count)| count).sum()
    }
}

/// Says what live hosts would migrate. Changes nothing; reads through the instances.
///
/// # Errors
/// [`OpsError::Refused`] where no live host described a saga or machine of this kind, or live hosts
/// have different versions: the older could not read what the newer write.
pub async fn plan(admin: &dyn StoreAdmin, kind: &str) -> Result<Migration, OpsError> {
    let now = admin.about().await?.now;
    let hosts = admin.hosts().await?;
    let alive = hosts.iter().filter(|host| is_alive(host, now));
    let mut known: Vec<_> = alive.flat_map(|host| described(host, kind)).collect();
    known.sort();
    known.dedup();
    let (endpoint, to) = match &known[..] {
        [] => {
            return Err(OpsError::Refused(format!(
                "no live host described a saga or machine `{kind}`; start one and ask again [SB0404]"
            )));
        }
        [(endpoint, version)] => (endpoint.clone(), *version),
        several => {
            let words: Vec<_> = several
                .iter()
                .map(|(endpoint, version)| format!("{version} at `{endpoint}`"))
                .collect();
            return Err(OpsError::Refused(format!(
                "live hosts have different versions of `{kind}`: {}; roll out to the end first [SB0402]",
                words.join(", ")
            )));
        }
    };
    let shapes = admin.instance_shapes().await?.into_iter();
    let mut from: Vec<(i32, u64)> = Vec::new();
    for shape in shapes.filter(|one| one.kind == kind && one.schema_version < to) {
        match from.iter_mut().find(|one| one.0 == shape.schema_version) {
            Some(one) => one.1 += shape.count,
            None => from.push((shape.schema_version, shape.count)),
        }
    }
    from.sort_unstable();
    Ok(Migration {
        kind: kind.to_owned(),
        endpoint,
        to,
        from,
    })
}

/// Lists endpoint and version of each saga or machine of a kind that a host described.
pub(crate) fn described(host: &StoredHost, kind: &str) -> Vec<(String, i32)> {
    let endpoints = host.definitions["endpoints"].as_array();
    let of = |endpoint: &Value| {
        let name = endpoint["endpoint"].as_str()?;
        let mut all = endpoint["definitions"].as_array()?.iter();
        let one = all.find(|one| one["machine"] == kind || one["saga"] == kind)?;
        let version = one["schema_version"].as_i64().unwrap_or(1);
        Some((name.to_owned(), i32::try_from(version).ok()?))
    };
    endpoints.into_iter().flatten().filter_map(of).collect()
}

/// Has live hosts write instances anew, a batch at a time, and tells `told` how far it is. Who is
/// killed on the way goes on by beginning again: what is written is not found any more.
///
/// # Errors
/// As a rehearsal; [`OpsError::Refused`] where a host does not have the saga any more. What was
/// migrated so far is.
pub async fn run(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    migration: &Migration,
    patience: Duration,
    mut told: impl FnMut(&Migrated),
) -> Result<Migrated, OpsError> {
    let mut done = Migrated::default();
    let mut after: Option<InstanceId> = None;
    loop {
        let filter = InstanceFilter {
            kind: Some(migration.kind.clone()),
            status: Some(InstanceStatus::Running),
            schema_before: Some(migration.to),
            after: after.take(),
            ..InstanceFilter::default()
        };
        let found = admin.instances(&filter, BATCH_MAX).await?;
        after = found.last().map(|one| one.id.clone());
        if after.is_none() {
            return Ok(done);
        }
        let batch = Batch {
            kind: migration.kind.clone(),
            keys: found.iter().map(|one| one.id.key.to_string()).collect(),
            who: operator.who.clone(),
        };
        let task = Task::Migrate(Box::new(batch));
        let endpoint = migration.endpoint.clone();
        let report = ask(admin, operator, endpoint, task, patience).await?.report;
        let Some(batch) = report.migrated else {
            let error = match report.verdict {
                Verdict::Refused { error, .. } => error,
                _ => "the host is of a release that cannot migrate".to_owned(),
            };
            return Err(OpsError::Refused(format!("{error} [SB0402]")));
        };
        done.migrated += batch.migrated;
        done.current += batch.current;
        done.failed.extend(batch.failed);
        told(&done);
    }
}
