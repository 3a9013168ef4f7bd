//! Hosts beside each other: which of them knows which version of what.

use std::collections::BTreeMap;

use sagabus_core::Timestamp;
use sagabus_core::admin::StoredHost;

use crate::status::is_alive;

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

#[cfg(test)]
mod tests {
    use sagabus_core::HostId;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn host(name: &str, seconds_ago: i64, handlers: Value) -> StoredHost {
        let heard = Timestamp::from_micros(NOW.as_micros() - seconds_ago * 1_000_000);
        StoredHost {
            id: HostId::new(),
            name: name.to_owned(),
            started_at: heard,
            heartbeat_at: heard,
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
}
