//! Hosts beside each other: which of them knows which version of what.

use std::collections::BTreeMap;

use sagabus_core::admin::StoredHost;
use sagabus_core::{MessageId, Timestamp};
use serde_json::Value;

use crate::machines::described;
use crate::status::{has_endpoint, is_alive};

/// A message type that the live hosts of an endpoint do not know alike: a release rolls out, or one
/// was forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The endpoint.
    pub endpoint: String,
    /// The message type.
    pub message_type: String,
    /// What each live host with this endpoint knows: its name and identity, and the highest
    /// version; none where it does not take the type at all.
    pub known: Vec<(String, Option<u64>)>,
}

/// What one host knows: message types with their highest versions.
type Known<'h> = BTreeMap<&'h str, u64>;

/// Compares what live hosts said of the endpoints that they share.
pub fn skews(hosts: &[StoredHost], now: Timestamp) -> Vec<Skew> {
    // Endpoint, then message type, then host.
    let mut endpoints: BTreeMap<&str, Vec<(String, Known<'_>)>> = BTreeMap::new();
    for host in hosts.iter().filter(|host| is_alive(host, now)) {
        let all = host.definitions["endpoints"].as_array();
        for endpoint in all.into_iter().flatten() {
            let Some(name) = endpoint["endpoint"].as_str() else {
                continue;
            };
            let handlers = endpoint["handlers"].as_array().into_iter().flatten();
            let versions = handlers.filter_map(|one| {
                let version = one["version"].as_u64().unwrap_or(1);
                Some((one["type"].as_str()?, version))
            });
            let shown = format!("{} {}", host.name, host.id);
            let known = endpoints.entry(name).or_default();
            known.push((shown, versions.collect()));
        }
    }
    let skews = endpoints.into_iter().flat_map(|(endpoint, hosts)| {
        let mut types: Vec<_> = hosts.iter().flat_map(|(_, known)| known.keys()).collect();
        types.sort();
        types.dedup();
        let skew = |message_type: &&str| {
            let each = hosts.iter();
            let known = each.map(|(host, known)| (host.clone(), known.get(message_type).copied()));
            Skew {
                endpoint: endpoint.to_owned(),
                message_type: (*message_type).to_owned(),
                known: known.collect(),
            }
        };
        let all: Vec<_> = types.into_iter().map(skew).collect();
        all
    });
    skews
        .filter(|skew| {
            skew.known
                .iter()
                .any(|(_, known)| *known != skew.known[0].1)
        })
        .collect()
}

/// A machine that the live hosts of an endpoint do not know alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSkew {
    /// The endpoint.
    pub endpoint: String,
    /// The machine.
    pub machine: String,
    /// What each live host with this endpoint knows: its name and identity, and the definition; none
    /// where it does not have the machine at all.
    pub known: Vec<(String, Option<DefinitionVersion>)>,
}

/// Tells one definition of a machine from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionVersion {
    /// The same where the definitions are the same.
    pub digest: String,
    /// The version of the shape of its data.
    pub schema_version: u64,
    /// How many states it has.
    pub states: usize,
    /// How many transitions.
    pub transitions: usize,
}

impl DefinitionVersion {
    fn of(description: &Value) -> Self {
        let count = |name: &str| description[name].as_array().map_or(0, Vec::len);
        let mut digest = MessageId::derived(&[&description.to_string()]).to_string();
        Self {
            digest: digest.split_off(digest.len() - 12),
            schema_version: description["schema_version"].as_u64().unwrap_or(1),
            states: count("states"),
            transitions: count("transitions"),
        }
    }
}

/// Compares the machines that live hosts described, endpoint by endpoint.
pub fn machine_skews(hosts: &[StoredHost], now: Timestamp) -> Vec<MachineSkew> {
    let alive = hosts.iter().filter(|host| is_alive(host, now));
    let alive: Vec<_> = alive.cloned().collect();
    let described = described(alive.clone(), now);
    let mut machines: Vec<_> = described
        .iter()
        .map(|one| (one.endpoint.as_str(), one.name.as_str()))
        .collect();
    machines.sort_unstable();
    machines.dedup();
    let skew = |(endpoint, machine): (&str, &str)| {
        let known = |host: &StoredHost| {
            let mut all = described.iter();
            let its = all.find(|one| {
                let is_it = one.endpoint == endpoint && one.name == machine;
                is_it && one.hosts.iter().any(|other| other.id == host.id)
            })?;
            Some(DefinitionVersion::of(&its.description))
        };
        let with_endpoint = alive.iter().filter(|host| has_endpoint(host, endpoint));
        MachineSkew {
            endpoint: endpoint.to_owned(),
            machine: machine.to_owned(),
            known: with_endpoint
                .map(|host| (format!("{} {}", host.name, host.id), known(host)))
                .collect(),
        }
    };
    let all = machines.into_iter().map(skew);
    all.filter(|one| one.known.iter().any(|(_, known)| *known != one.known[0].1))
        .collect()
}

#[cfg(test)]
mod tests {
    use sagabus_core::HostId;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn host(name: &str, seconds_ago: i64, handlers: Value) -> StoredHost {
        let heard = Timestamp::from_micros(NOW.as_micros() - seconds_ago * 1_000_000);
        StoredHost {
            id: HostId::new(),
            name: name.to_owned(),
            started_at: heard,
            heartbeat_at: heard,
            stopped_at: None,
            behind: None,
            definitions: json!({
                "endpoints": [{ "endpoint": "orders", "handlers": handlers }],
            }),
        }
    }

    #[test]
    fn what_live_hosts_do_not_know_alike_is_named() {
        let old = json!([{ "type": "placed", "version": 1 }, { "type": "paid" }]);
        let new = json!([
            { "type": "placed", "version": 2 }, { "type": "paid" }, { "type": "refunded" },
        ]);
        let hosts = [host("a", 0, old.clone()), host("b", 1, new.clone())];
        let found = skews(&hosts, NOW);
        let types: Vec<_> = found.iter().map(|one| one.message_type.as_str()).collect();
        assert_eq!(types, ["placed", "refunded"]);
        let versions: Vec<_> = found[0].known.iter().map(|(_, version)| *version).collect();
        assert_eq!(versions, [Some(1), Some(2)]);
        assert_eq!(found[1].known[0].1, None);
        // Alike, or long gone, is no skew.
        assert_eq!(
            skews(&[host("a", 0, new.clone()), host("b", 0, new.clone())], NOW),
            []
        );
        assert_eq!(skews(&[host("a", 500, old), host("b", 0, new)], NOW), []);
    }

    fn with_machine(name: &str, seconds_ago: i64, definitions: Value) -> StoredHost {
        let mut host = host(name, seconds_ago, json!([]));
        host.definitions["endpoints"][0]["definitions"] = definitions;
        host
    }

    #[test]
    fn machines_that_live_hosts_do_not_know_alike_are_named() {
        let old = json!([{ "machine": "order", "states": ["new"], "schema_version": 1 }]);
        let new = json!([
            { "machine": "order", "states": ["new", "paid"], "schema_version": 2 },
            { "machine": "refund", "states": [] },
        ]);
        let hosts = [
            with_machine("a", 0, old.clone()),
            with_machine("b", 1, new.clone()),
        ];
        let found = machine_skews(&hosts, NOW);
        let names: Vec<_> = found.iter().map(|one| one.machine.as_str()).collect();
        assert_eq!(names, ["order", "refund"]);
        let versions = found[0].known.iter();
        let versions: Vec<_> = versions.map(|(_, one)| one.clone().unwrap()).collect();
        assert_eq!((versions[0].schema_version, versions[0].states), (1, 1));
        assert_eq!((versions[1].schema_version, versions[1].states), (2, 2));
        assert_ne!(versions[0].digest, versions[1].digest);
        assert_eq!(found[1].known[0].1, None);
        // Alike, or long gone, is no skew; nor is what is no description.
        let alike = [
            with_machine("a", 0, new.clone()),
            with_machine("b", 0, new.clone()),
        ];
        assert_eq!(machine_skews(&alike, NOW), []);
        let gone = [with_machine("a", 500, old), with_machine("b", 0, new)];
        assert_eq!(machine_skews(&gone, NOW), []);
        let odd = [
            with_machine("a", 0, json!("x")),
            with_machine("b", 0, json!(null)),
        ];
        assert_eq!(machine_skews(&odd, NOW), []);
    }
}
