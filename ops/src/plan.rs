//! Whether a release can go on with what is stored: asked before it is rolled out.
//!
//! A release is what its host says of itself
//! ([`HostBuilder::describe`](sagabus_core::HostBuilder::describe)).

use std::collections::{BTreeMap, BTreeSet};

use sagabus_core::admin::{
    About, InstanceShape, SHAPES_MAX, StoreAdmin, StoredEndpoint, StoredHost, WaitingShape,
};
use serde_json::Value;

use crate::error::OpsError;
use crate::status::Finding;

/// What came of comparing a release with a database.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which database.
    pub about: About,
    /// How many running instances and waiting messages are of sagas and endpoints of the release.
    pub compared: u64,
    /// How many are of others: of services of another name, or of nobody any more.
    pub others: u64,
    /// What the release cannot go on with. Empty: it can be rolled out.
    pub findings: Vec<Finding>,
}

/// Compares a release with what a database holds. What belongs to services of other names is left
/// alone: a saga, machine or endpoint that only hosts of another name described.
///
/// # Errors
/// When the store does not answer, or its schema is not of this release.
pub async fn plan(admin: &dyn StoreAdmin, release: &Value) -> Result<Plan, OpsError> {
    let about = admin.about().await?;
    let hosts = admin.hosts().await?;
    let endpoints = admin.endpoints().await?;
    let mut instances = admin.instance_shapes().await?;
    // What sagabus keeps for itself: pauses, schedules.
    instances.retain(|one| !one.kind.starts_with('@'));
    let waiting = admin.waiting_shapes().await?;
    let ours = Release::read(release);
    let name = release["host"].as_str().unwrap_or_default();
    let theirs = hosts.iter().filter(|host| host.name != name);
    let theirs = theirs.map(|host| Release::read(&host.definitions));
    let theirs = theirs.fold(Release::default(), Release::and);
    let kinds = instances.iter();
    let kinds = kinds.map(|one| (ours.kinds.contains_key(&one.kind), one.count));
    let places = waiting.iter();
    let places = places.map(|one| (ours.endpoints.contains_key(&one.endpoint), one.count));
    let (mut compared, mut others) = (0, 0);
    for (is_ours, count) in kinds.chain(places) {
        match is_ours {
            true => compared += count,
            false => others += count,
        }
    }
    let mut findings = Vec::from_iter(too_many(instances.len(), waiting.len()));
    findings.extend(
        instances
            .iter()
            .filter_map(|one| ours.goes_on(&theirs, one)),
    );
    findings.extend(waiting.iter().filter_map(|one| ours.handles(&theirs, one)));
    findings.extend(ours.owners(&endpoints, &hosts));
    Ok(Plan {
        about,
        compared,
        others,
        findings,
    })
}

/// What is not compared must not pass for what is well.
fn too_many(instances: usize, waiting: usize) -> Option<Finding> {
    let is_cut = instances.max(waiting) >= SHAPES_MAX as usize;
    is_cut.then(|| Finding {
        code: "not_all_compared",
        fact: format!("more than {SHAPES_MAX} kinds of instances or messages; not all compared"),
        remedy: "look at `sagas list` and `outbox list`; this many are a mistake".to_owned(),
    })
}

/// What a release knows.
#[derive(Default)]
struct Release {
    /// Sagas and machines, by name.
    kinds: BTreeMap<String, Kind>,
    /// Endpoints: what they take, in which version at most.
    endpoints: BTreeMap<String, BTreeMap<String, u32>>,
    /// Commands that it takes: type and endpoint.
    commands: BTreeSet<(String, String)>,
}

/// A saga or a machine.
struct Kind {
    schema_version: i64,
    /// `None` for a saga, which has no states.
    states: Option<BTreeSet<String>>,
}

impl Release {
    /// Reads what a host said of itself. What is shaped otherwise says nothing.
    fn read(definitions: &Value) -> Self {
        let mut release = Self::default();
        for endpoint in list(&definitions["endpoints"]) {
            let name = text(&endpoint["endpoint"]);
            let takes = release.endpoints.entry(name.clone()).or_default();
            for handler in list(&endpoint["handlers"]) {
                let version = handler["version"].as_u64().unwrap_or(1);
                let version = u32::try_from(version).unwrap_or(u32::MAX);
                let names = std::iter::once(&handler["type"]).chain(list(&handler["aliases"]));
                for message_type in names.map(text) {
                    if handler["kind"] == "command" {
                        let command = (message_type.clone(), name.clone());
                        release.commands.insert(command);
                    }
                    takes.insert(message_type, version);
                }
            }
            for definition in list(&endpoint["definitions"]) {
                release.kinds.extend(Kind::read(definition));
            }
        }
        release
    }

    fn and(mut self, other: Self) -> Self {
        self.kinds.extend(other.kinds);
        self.endpoints.extend(other.endpoints);
        self
    }

    /// Finds what keeps instances from going on.
    fn goes_on(&self, theirs: &Self, shape: &InstanceShape) -> Option<Finding> {
        let InstanceShape {
            kind, count, key, ..
        } = shape;
        let these = format!("{count} running `{kind}` (`{key}` is one)");
        let Some(known) = self.kinds.get(kind) else {
            return (!theirs.kinds.contains_key(kind)).then(|| Finding {
                code: "saga_gone",
                fact: format!("{these}, and no saga or machine of that name"),
                remedy: "keep it until they are over: a stored name is not to be changed"
                    .to_owned(),
            });
        };
        let version = i64::from(shape.schema_version);
        if version > known.schema_version {
            let knows = known.schema_version;
            return Some(Finding {
                code: "state_newer",
                fact: format!("{these} of schema version {version}, and it reads up to {knows}"),
                remedy: "roll out a release that knows that version".to_owned(),
            });
        }
        let states = known.states.as_ref()?;
        let state = shape.state.as_deref().unwrap_or_default();
        (!states.contains(state)).then(|| Finding {
            code: "state_unknown",
            fact: format!("{these} in state `{state}`, which it does not have"),
            remedy: format!("keep the state, or give another one the alias `{state}`"),
        })
    }

    /// Finds what keeps messages from being handled.
    fn handles(&self, theirs: &Self, shape: &WaitingShape) -> Option<Finding> {
        let WaitingShape {
            endpoint,
            message_type,
            version,
            count,
            ..
        } = shape;
        let (code, these) = match &shape.timer_of {
            Some(kind) => (
                "timer_unhandled",
                format!("{count} timers of `{kind}` bring `{message_type}` to `{endpoint}`"),
            ),
            None => (
                "message_unhandled",
                format!("{count} `{message_type}` wait at `{endpoint}`"),
            ),
        };
        let Some(takes) = self.endpoints.get(endpoint) else {
            return (!theirs.endpoints.contains_key(endpoint)).then(|| Finding {
                code: "endpoint_gone",
                fact: format!("{these}, and no endpoint of that name"),
                remedy: "keep the endpoint until nothing waits for it".to_owned(),
            });
        };
        let Some(known) = takes.get(message_type) else {
            return Some(Finding {
                code,
                fact: format!("{these}, which takes no such type"),
                remedy: "keep the handler until none waits; where the type was renamed, give it \
                         this name as an alias"
                    .to_owned(),
            });
        };
        (version > known).then(|| Finding {
            code: "message_newer",
            fact: format!("{these} in version {version}, and it reads up to {known}"),
            remedy: "roll out a release that knows that version".to_owned(),
        })
    }

    /// Finds commands that belong to another endpoint of the database, which would keep the host
    /// from starting.
    fn owners(&self, endpoints: &[StoredEndpoint], hosts: &[StoredHost]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (message_type, ours) in &self.commands {
            let owner = endpoints.iter().find(|one| {
                let mut taken = one.subscriptions.iter();
                one.name != *ours
                    && taken.any(|(taken, kind)| taken == message_type && kind == "command")
            });
            let Some(owner) = owner else { continue };
            let by = hosts.iter().find(|host| {
                let takes = Self::read(&host.definitions);
                takes.endpoints.contains_key(&owner.name)
            });
            let by = by.map_or_else(String::new, |host| format!(" of host `{}`", host.name));
            let owner = &owner.name;
            findings.push(Finding {
                code: "owner_taken",
                fact: format!(
                    "command `{message_type}` belongs to endpoint `{owner}`{by}, and this release \
                     takes it at `{ours}`"
                ),
                remedy: format!(
                    "stop what runs `{owner}` and end its subscription: `sagabus endpoints remove \
                     {owner} --type {message_type}`"
                ),
            });
        }
        findings
    }
}

impl Kind {
    fn read(definition: &Value) -> Option<(String, Self)> {
        let schema_version = definition["schema_version"].as_i64().unwrap_or(1);
        if let Some(name) = definition["saga"].as_str() {
            let states = None;
            let saga = Self {
                schema_version,
                states,
            };
            return Some((name.to_owned(), saga));
        }
        let name = definition["machine"].as_str()?;
        let former = definition["former_states"].as_object();
        let former = former.into_iter().flat_map(|all| all.keys().cloned());
        let states = list(&definition["states"]).map(text).chain(former);
        let machine = Self {
            schema_version,
            states: Some(states.collect()),
        };
        Some((name.to_owned(), machine))
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release() -> Release {
        Release::read(&json!({
            "host": "shop",
            "endpoints": [{
                "endpoint": "orders",
                "handlers": [
                    { "type": "orders.place", "aliases": ["shop.place"], "version": 2, "kind": "command" },
                    { "type": "orders.timed-out", "version": 1, "kind": "event" },
                ],
                "definitions": [
                    { "machine": "order", "schema_version": 2, "states": ["paying", "shipping"],
                      "former_states": { "sending": "shipping" } },
                    { "saga": "shipping", "schema_version": 1 },
                ],
            }],
        }))
    }

    fn theirs() -> Release {
        Release::read(&json!({
            "endpoints": [{ "endpoint": "mails", "definitions": [{ "saga": "sign-up" }] }],
        }))
    }

    fn instance(kind: &str, state: Option<&str>, schema_version: i32) -> Option<&'static str> {
        let shape = InstanceShape {
            kind: kind.to_owned(),
            state: state.map(str::to_owned),
            schema_version,
            count: 3,
            key: "7".to_owned(),
        };
        release().goes_on(&theirs(), &shape).map(|one| one.code)
    }

    fn message(endpoint: &str, message_type: &str, version: u32) -> Option<&'static str> {
        let shape = WaitingShape {
            endpoint: endpoint.to_owned(),
            message_type: message_type.to_owned(),
            version,
            timer_of: None,
            count: 3,
        };
        release().handles(&theirs(), &shape).map(|one| one.code)
    }

    #[test]
    fn an_instance_goes_on_where_its_state_and_version_are_known() {
        for state in ["paying", "shipping", "sending"] {
            assert_eq!(instance("order", Some(state), 1), None);
            assert_eq!(instance("order", Some(state), 2), None);
        }
        assert_eq!(instance("shipping", None, 1), None);
        assert_eq!(instance("sign-up", None, 9), None, "another service's");
        assert_eq!(instance("order", Some("paying"), 3), Some("state_newer"));
        assert_eq!(instance("order", Some("lost"), 1), Some("state_unknown"));
        assert_eq!(instance("order", None, 1), Some("state_unknown"));
        assert_eq!(instance("refund", None, 1), Some("saga_gone"));
    }

    #[test]
    fn a_message_is_handled_where_its_type_and_version_are_known() {
        assert_eq!(message("orders", "orders.place", 2), None);
        assert_eq!(message("orders", "shop.place", 1), None);
        assert_eq!(message("mails", "mails.send", 1), None, "another service's");
        let cases = [
            ("orders", "orders.place", 3, "message_newer"),
            ("orders", "orders.place", u32::MAX, "message_newer"),
            ("orders", "orders.gone", 1, "message_unhandled"),
            ("refunds", "orders.place", 1, "endpoint_gone"),
        ];
        for (endpoint, message_type, version, code) in cases {
            assert_eq!(message(endpoint, message_type, version), Some(code));
        }
    }

    #[test]
    fn a_command_that_belongs_to_another_endpoint_is_found() {
        let taken = |name: &str, kind: &str| StoredEndpoint {
            name: name.to_owned(),
            order: sagabus_core::Order::Unordered,
            subscriptions: vec![("shop.place".to_owned(), kind.to_owned())],
        };
        let found = release().owners(&[taken("old", "command")], &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].fact.contains("belongs to endpoint `old`"));
        assert_eq!(release().owners(&[taken("orders", "command")], &[]), []);
        assert_eq!(release().owners(&[taken("old", "event")], &[]), []);
    }

    #[test]
    fn what_is_no_description_knows_nothing() {
        for odd in [
            json!(null),
            json!({ "endpoints": 7 }),
            json!({ "endpoints": [7] }),
        ] {
            assert!(Release::read(&odd).kinds.is_empty(), "{odd}");
        }
    }

    #[test]
    fn what_was_cut_is_no_clean_plan() {
        assert!(too_many(SHAPES_MAX as usize, 0).is_some());
        assert!(too_many(3, 4).is_none());
    }
}
