//! The brokers of one host: a default one and named ones, and which message type goes by which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::json;

use crate::endpoint::EndpointName;
use crate::error::BuildError;
use crate::headers::{self, Headers};
use crate::joining::Joined;
use crate::message::Kind;
use crate::plan::EndpointPlan;
use crate::store::EndpointSpec;
use crate::transport::{Deliveries, Transport};

/// What begins, and ends, the name of a transport in a stored destination.
const MARK: char = ':';
/// How the default transport is shown.
const DEFAULT: &str = "default";

/// The name of a transport of a host. The default one has none.
///
/// A row names its transport in its destination: `event/orders.placed` goes by the default one,
/// `:archive:event/orders.placed` by the one that is called `archive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportName(Option<Arc<str>>);

impl TransportName {
    /// Checks and wraps a name: 1 to 100 characters out of `a-z`, `0-9`, `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`BuildError::TransportName`] when it has other characters, or is `default`.
    pub fn new(name: &str) -> Result<Self, BuildError> {
        if name == DEFAULT || EndpointName::new(name).is_err() {
            return Err(BuildError::TransportName {
                name: name.to_owned(),
            });
        }
        Ok(Self(Some(name.into())))
    }

    /// Reads the transport from a stored destination, and the address that it understands.
    pub fn split(destination: &str) -> (Option<&str>, &str) {
        let named = destination.strip_prefix(MARK);
        match named.and_then(|rest| rest.split_once(MARK)) {
            Some((name, address)) => (Some(name), address),
            None => (None, destination),
        }
    }

    /// Returns what the stored destinations of this transport begin with: `:archive:`, and nothing
    /// for the default one.
    pub fn prefix(&self) -> String {
        match &self.0 {
            Some(name) => format!("{MARK}{name}{MARK}"),
            None => String::new(),
        }
    }

    /// Says whether a stored destination goes by this transport. Endpoints of this database
    /// (`@orders`) and what nobody takes (`?orders.place`) go by none.
    pub fn carries(&self, destination: &str) -> bool {
        match self.0.as_deref() {
            Some(name) => Self::split(destination).0 == Some(name),
            None => !destination.starts_with(['@', '?', MARK]),
        }
    }

    /// Returns an address of this transport as it is stored.
    pub fn stored(&self, address: impl Into<String>) -> String {
        let address = address.into();
        match &self.0 {
            Some(_) => format!("{}{address}", self.prefix()),
            None => address,
        }
    }

    /// Notes in a message that came by this transport that its answer goes back by it.
    pub(crate) fn localise(&self, headers: &mut Headers) {
        let Some(address) = headers.get(headers::REPLY_TO) else {
            return;
        };
        if self.0.is_some() && !address.starts_with('@') {
            let stored = self.stored(address);
            headers.set(headers::REPLY_TO, stored);
        }
    }
}

impl fmt::Display for TransportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or(DEFAULT))
    }
}

/// The transports of a host, checked.
#[derive(Clone, Debug, Default)]
pub struct Transports {
    all: BTreeMap<TransportName, Arc<dyn Transport>>,
    /// The types that do not go by the default one.
    routes: HashMap<String, TransportName>,
    /// The transports by which this host sends commands, and by which answers come back.
    asked: BTreeSet<TransportName>,
}

impl Transports {
    /// Sets a transport; returns whether there was none of this name.
    pub(crate) fn add(&mut self, name: TransportName, transport: impl Transport + 'static) -> bool {
        if name == TransportName::default() {
            self.asked.insert(name.clone());
        }
        let transport = Arc::new(Joined::new(transport));
        self.all.insert(name, transport).is_none()
    }

    /// Takes the host's routes, and sends every command to where its owner reads.
    pub(crate) fn route_all(
        &mut self,
        routes: &[(Kind, &'static str, String)],
        endpoints: &[EndpointPlan],
    ) -> Result<(), BuildError> {
        for (kind, message_type, name) in routes {
            let by = TransportName::new(name)?;
            self.check(&by, || format!("route of `{message_type}`"))?;
            self.route(*kind, message_type, by);
        }
        for endpoint in endpoints {
            let (name, reads) = (&endpoint.spec.name, &endpoint.reads);
            if *reads != TransportName::default() {
                self.check(reads, || format!("endpoint `{name}`"))?;
            }
            let commands = endpoint.spec.subscriptions.iter();
            for one in commands.filter(|one| one.kind == Kind::Command) {
                self.route_to_owner(&one.message_type, endpoint)?;
            }
        }
        Ok(())
    }

    fn check(&self, name: &TransportName, what: impl Fn() -> String) -> Result<(), BuildError> {
        match self.all.contains_key(name) {
            true => Ok(()),
            false => Err(BuildError::TransportUnknown {
                what: what(),
                name: name.to_string(),
            }),
        }
    }

    fn route_to_owner(
        &mut self,
        message_type: &str,
        owner: &EndpointPlan,
    ) -> Result<(), BuildError> {
        match self.routes.get(message_type) {
            Some(by) if *by != owner.reads => Err(BuildError::OwnerElsewhere {
                message_type: message_type.to_owned(),
                by: by.to_string(),
                endpoint: owner.spec.name.to_string(),
                reads: owner.reads.to_string(),
            }),
            None if owner.reads != TransportName::default() => {
                self.route(Kind::Command, message_type, owner.reads.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn route(&mut self, kind: Kind, message_type: &str, by: TransportName) {
        if kind == Kind::Command {
            self.asked.insert(by.clone());
        }
        self.routes.insert(message_type.to_owned(), by);
    }

    /// Returns the transport that carries a message type; `None` where the database is the bus.
    pub fn of(&self, message_type: &str) -> Option<(&TransportName, &Arc<dyn Transport>)> {
        let name = self.routes.get(message_type);
        self.all.get_key_value(&name.cloned().unwrap_or_default())
    }

    /// Returns a transport.
    pub fn get(&self, name: &TransportName) -> Option<&Arc<dyn Transport>> {
        self.all.get(name)
    }

    /// Says whether the database alone is the bus.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Lists all, the default one first.
    pub fn each(&self) -> impl Iterator<Item = (&TransportName, &Arc<dyn Transport>)> {
        self.all.iter()
    }

    /// Says what an endpoint that reads from the transport `reads` receives by the transport `by`:
    /// all of its subscriptions, only answers to its commands, or nothing.
    pub(crate) fn share(
        &self,
        by: &TransportName,
        reads: &TransportName,
        endpoint: &EndpointSpec,
    ) -> Option<EndpointSpec> {
        if by == reads {
            return Some(endpoint.clone());
        }
        let answers = || EndpointSpec {
            subscriptions: Vec::new(),
            ..endpoint.clone()
        };
        self.asked.contains(by).then(answers)
    }

    /// Describes them, as JSON, with what they declare for these endpoints.
    pub(crate) fn describe(&self, endpoints: &[EndpointPlan]) -> serde_json::Value {
        let each = self.each().map(|(name, transport)| {
            let can = transport.capabilities();
            let shares = endpoints.iter();
            let shares = shares.filter_map(|one| self.share(name, &one.reads, &one.spec));
            let routes = self.routes.iter().filter(|(_, by)| *by == name);
            let mut routes: Vec<_> = routes.map(|(message_type, _)| message_type).collect();
            routes.sort_unstable();
            json!({
                "transport": name.to_string(),
                "broker": can.broker,
                "delivery_limit": match can.deliveries {
                    Deliveries::Unlimited => serde_json::Value::Null,
                    Deliveries::Limited(limit) => limit.into(),
                    Deliveries::Unknown => "unknown".into(),
                },
                "order": can.order,
                "reports_unroutable": can.reports_unroutable,
                "body_bytes_max": can.body_bytes_max,
                "routes": routes,
                "topology": transport.topology(&shares.collect::<Vec<_>>()),
            })
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_destination_names_its_transport() {
        let archive = TransportName::new("archive").unwrap();
        let stored = archive.stored("event/orders.placed");
        assert_eq!(stored, ":archive:event/orders.placed");
        let split = TransportName::split(&stored);
        assert_eq!(split, (Some("archive"), "event/orders.placed"));
        let none = TransportName::default();
        let plain = none.stored("queue/a:b");
        assert_eq!(TransportName::split(&plain), (None, "queue/a:b"));
        let carried = |by: &TransportName| {
            let all = [stored.as_str(), &plain, "@orders", "?x", ":archives:x", ":"];
            all.map(|one| by.carries(one))
        };
        assert_eq!(carried(&archive), [true, false, false, false, false, false]);
        assert_eq!(carried(&none), [false, true, false, false, false, false]);
    }

    #[test]
    fn a_name_that_cannot_be_told_apart_is_refused() {
        for name in ["", "default", "a:b", "Archive", "a b"] {
            let refused = TransportName::new(name).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name:?}")), "{refused}");
        }
    }

    #[test]
    fn an_answer_goes_back_by_the_transport_of_its_question() {
        let archive = TransportName::new("archive").unwrap();
        let after = |name: &TransportName, address: &str| {
            let mut headers: Headers = [(headers::REPLY_TO, address)].into_iter().collect();
            name.localise(&mut headers);
            headers.get(headers::REPLY_TO).map(str::to_owned)
        };
        let back = after(&archive, "endpoint/shop");
        assert_eq!(back.as_deref(), Some(":archive:endpoint/shop"));
        assert_eq!(after(&archive, "@shop").as_deref(), Some("@shop"));
        let plain = after(&TransportName::default(), "endpoint/shop");
        assert_eq!(plain.as_deref(), Some("endpoint/shop"));
    }
}
