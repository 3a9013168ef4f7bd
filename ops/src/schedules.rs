//! What recurs: listed, paused, resumed, fired, removed.

use sagabus_core::admin::{Action, InstanceFilter, PAGE_MAX, StoreAdmin, StoredHost};
use sagabus_core::schedule::{SCHEDULE_KIND, Schedule, ScheduleVerb, schedule_id};
use sagabus_core::store::Instance;

use crate::error::OpsError;
use crate::operator::Operator;
use crate::status::is_alive;

/// A schedule as it is stored, and who declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSchedule {
    /// Its name.
    pub name: String,
    /// How it stands, as [`ScheduleState::as_str`](sagabus_core::schedule::ScheduleState::as_str)
    /// spells it.
    pub state: String,
    /// What it holds; none where this release cannot read it.
    pub schedule: Option<Schedule>,
    /// How many live hosts declare it. None: nobody fires it.
    pub declared_by: usize,
}

/// Reads all schedules, in the order of their names.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn list(admin: &dyn StoreAdmin) -> Result<Vec<StoredSchedule>, OpsError> {
    let filter = InstanceFilter {
        kind: Some(SCHEDULE_KIND.to_owned()),
        ..InstanceFilter::default()
    };
    let found = admin.instances(&filter, PAGE_MAX).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let now = admin.about().await?.now;
    let mut hosts = admin.hosts().await?;
    hosts.retain(|host| is_alive(host, now));
    let mut schedules = Vec::with_capacity(found.len());
    for one in found {
        let stored = admin.instance(&one.id).await?;
        schedules.extend(stored.map(|stored| read(stored, &hosts)));
    }
    Ok(schedules)
}

/// Reads one schedule.
///
/// # Errors
/// [`OpsError::NotFound`] where there is none of this name.
pub async fn show(admin: &dyn StoreAdmin, name: &str) -> Result<StoredSchedule, OpsError> {
    let stored = admin.instance(&schedule_id(name)).await?;
    let Some(stored) = stored else {
        return Err(OpsError::NotFound(format!(
            "there is no schedule `{name}`; `sagabus schedules list` shows those there are [SB0401]"
        )));
    };
    let now = admin.about().await?.now;
    let mut hosts = admin.hosts().await?;
    hosts.retain(|host| is_alive(host, now));
    Ok(read(stored, &hosts))
}

/// Pauses, resumes, fires or removes a schedule. Hosts notice within a second.
///
/// # Errors
/// [`OpsError::NotFound`] where there is none of this name; [`OpsError::Refused`] where it stands
/// so that the verb changes nothing, where a live host declares what is to be removed, or where none
/// does that could fire it.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: ScheduleVerb,
    name: &str,
) -> Result<(), OpsError> {
    let known = show(admin, name).await?;
    let refused = |fact: String| Err(OpsError::Refused(fact));
    if verb == ScheduleVerb::Remove && known.declared_by > 0 {
        return refused(format!(
            "{} live hosts declare schedule `{name}`, and would again; take it out of them first, \
             or pause it [SB0402]",
            known.declared_by
        ));
    }
    if verb == ScheduleVerb::Fire && known.declared_by == 0 {
        return refused(format!(
            "no live host declares schedule `{name}`, so nobody can make its message; start one [SB0402]"
        ));
    }
    let action = Action::ChangeSchedule {
        name: name.to_owned(),
        verb,
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => refused(format!(
            "schedule `{name}` is {}: nothing to change; look again in a second [SB0403]",
            known.state.replace('_', " ")
        )),
    }
}

fn read(stored: Instance, alive: &[StoredHost]) -> StoredSchedule {
    let name = stored.id.key.to_string();
    let declares = |host: &&StoredHost| {
        let all = host.definitions["recurring"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one["schedule"] == name.as_str()))
    };
    StoredSchedule {
        declared_by: alive.iter().filter(declares).count(),
        state: stored.state.unwrap_or_default(),
        schedule: serde_json::from_slice(&stored.data).ok(),
        name,
    }
}
