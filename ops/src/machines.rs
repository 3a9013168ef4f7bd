//! The machines that hosts described when they started.

use sagabus_core::Timestamp;
use sagabus_core::admin::{StoreAdmin, StoredHost};
use serde_json::Value;

use crate::error::OpsError;
use crate::status::is_alive;

/// A machine as hosts described it: one for each description that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMachine {
    /// Its name.
    pub name: String,
    /// The endpoint that it is on.
    pub endpoint: String,
    /// States and transitions; `sagabus_saga::machine` draws them.
    pub description: Value,
    /// The hosts that described it so, whoever was heard of last first.
    pub hosts: Vec<StoredHost>,
    /// How many of them are alive.
    pub alive: usize,
}

/// Lists machines in the order of their names; of one name, what live hosts run comes first, then
/// what was heard of last.
///
/// # Errors
/// When the store does not answer.
pub async fn list(admin: &dyn StoreAdmin) -> Result<Vec<DescribedMachine>, OpsError> {
    let now = admin.about().await?.now;
    Ok(described(admin.hosts().await?, now))
}

/// Finds what hosts said of the machine of a name: at least one, in the order of [`list`].
///
/// # Errors
/// [`OpsError::NotFound`] where no host described one of this name.
pub async fn find(admin: &dyn StoreAdmin, name: &str) -> Result<Vec<DescribedMachine>, OpsError> {
    let mut found = list(admin).await?;
    found.retain(|one| one.name == name);
    if found.is_empty() {
        return Err(OpsError::NotFound(format!(
            "no host described a machine `{name}`; `sagabus machines list` shows those there are [SB0401]"
        )));
    }
    Ok(found)
}

/// Lists the machines of a release, which no host need run: what its host says of itself.
pub fn in_release(definitions: &Value) -> Vec<DescribedMachine> {
    let machines = machines_of(definitions);
    machines
        .map(|(name, endpoint, description)| DescribedMachine {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            description: description.clone(),
            hosts: Vec::new(),
            alive: 0,
        })
        .collect()
}

/// Groups what hosts said, the latest heartbeat first, by what they said.
pub(crate) fn described(hosts: Vec<StoredHost>, now: Timestamp) -> Vec<DescribedMachine> {
    let mut all: Vec<DescribedMachine> = Vec::new();
    for host in hosts {
        let alive = usize::from(is_alive(&host, now));
        for (name, endpoint, description) in machines_of(&host.definitions) {
            let known = all.iter_mut().find(|one| {
                one.name == name && one.endpoint == endpoint && one.description == *description
            });
            match known {
                Some(known) => {
                    known.hosts.push(host.clone());
                    known.alive += alive;
                }
                None => all.push(DescribedMachine {
                    name: name.to_owned(),
                    endpoint: endpoint.to_owned(),
                    description: description.clone(),
                    hosts: vec![host.clone()],
                    alive,
                }),
            }
        }
    }
    // Stable: of equals, whoever was heard of last stays first.
    all.sort_by(|a, b| (&a.name, a.alive == 0).cmp(&(&b.name, b.alive == 0)));
    all
}

/// Lists name, endpoint and description. What is not shaped like a machine is none.
fn machines_of(definitions: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let endpoints = definitions["endpoints"].as_array();
    endpoints.into_iter().flatten().flat_map(|endpoint| {
        let name = endpoint["endpoint"].as_str().unwrap_or_default();
        let definitions = endpoint["definitions"].as_array().into_iter().flatten();
        definitions.filter_map(move |one| Some((one["machine"].as_str()?, name, one)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn host(name: &str, seconds_ago: i64, machine: &Value) -> StoredHost {
        let heard = Timestamp::from_micros(NOW - seconds_ago * 1_000_000);
        let endpoint = json!({ "endpoint": "orders", "definitions": [machine] });
        StoredHost {
            id: sagabus_core::HostId::new(),
            name: name.to_owned(),
            started_at: heard,
            heartbeat_at: heard,
            stopped_at: None,
            behind: None,
            definitions: json!({ "lease_seconds": 15, "endpoints": [endpoint] }),
        }
    }

    #[test]
    fn hosts_that_say_the_same_are_one_and_live_ones_come_first() {
        let new = json!({ "machine": "order", "states": ["new"] });
        let old = json!({ "machine": "order", "states": ["old"] });
        let odd = json!({ "saga": "shipping" });
        let hosts = vec![
            host("a", 0, &old),
            host("b", 1, &odd),
            host("c", 2, &new),
            host("d", 3, &old),
            host("e", 500, &json!({ "machine": "gone" })),
        ];
        let all = described(hosts, Timestamp::from_micros(NOW));
        let told: Vec<_> = all
            .iter()
            .map(|one| (one.name.as_str(), one.hosts.len(), one.alive))
            .collect();
        assert_eq!(told, [("gone", 1, 0), ("order", 2, 2), ("order", 1, 1)]);
        assert_eq!(all[1].description, old, "heard of last");
    }

    #[test]
    fn a_gone_host_that_was_heard_of_later_is_behind_a_live_one() {
        let (new, old) = (
            json!({"machine": "m", "v": 2}),
            json!({"machine": "m", "v": 1}),
        );
        let mut patient = host("patient", 100, &old);
        patient.definitions["lease_seconds"] = json!(60);
        let hosts = vec![host("gone", 90, &new), patient];
        let all = described(hosts, Timestamp::from_micros(NOW));
        assert_eq!(
            (all[0].description["v"].as_i64(), all[0].alive),
            (Some(1), 1)
        );
    }

    #[test]
    fn what_is_no_description_is_no_machine() {
        for odd in [
            json!(null),
            json!([1]),
            json!({ "machine": 7 }),
            json!("order"),
        ] {
            let hosts = vec![host("a", 0, &odd)];
            assert_eq!(described(hosts, Timestamp::from_micros(NOW)), []);
        }
    }
}
