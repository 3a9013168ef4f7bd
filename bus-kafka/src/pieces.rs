//! What endpoints need on the cluster, as a host says it of itself.

use sagabus_core::store::EndpointSpec;
use serde_json::{Value, json};

use crate::config::{Creation, KafkaConfig};
use crate::owners;
use crate::topology::{Plan, Reads, group};

/// Says what is created for endpoints, or looked for, as JSON for people. Names are those on the
/// cluster; what is left to the broker is `null`.
pub(crate) fn described(config: &KafkaConfig, endpoints: &[EndpointSpec]) -> Value {
    let reads: Vec<_> = endpoints.iter().map(|one| Reads::of(config, one)).collect();
    let names = reads.iter().flat_map(|one| one.topics.keys());
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let topics = names.into_iter().map(|name| {
        let plan = Plan::of(config, name);
        let settings = plan.settings.into_iter();
        let settings = settings.map(|(setting, value)| (setting.to_owned(), value.into()));
        json!({
            "name": name,
            "partitions": plan.partitions,
            "replication": plan.replication,
            "settings": Value::Object(settings.collect()),
        })
    });
    let groups = endpoints.iter().zip(&reads).map(|(endpoint, reads)| {
        json!({
            "name": group(config, &endpoint.name),
            "reads": reads.topics.keys().collect::<Vec<_>>(),
        })
    });
    json!({
        "mode": match config.topics.creation {
            Creation::Never => "verify",
            _ => "declare",
        },
        "topics": topics.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "owners": owners::topic(config),
    })
}

#[cfg(test)]
mod tests {
    use sagabus_core::endpoint::{EndpointName, Order};
    use sagabus_core::message::Kind;
    use sagabus_core::store::Subscription;

    use super::*;

    #[test]
    fn what_is_created_is_described_with_its_names_on_the_cluster() {
        let mut config = KafkaConfig::new("localhost:9092");
        config.prefix = "ns.".to_owned();
        config.topics.partitions = Some(12);
        let taken = [(Kind::Command, "shop.pay"), (Kind::Event, "shop.placed")];
        let subscriptions = taken.map(|(kind, message_type)| Subscription {
            message_type: message_type.into(),
            kind,
        });
        let spec = EndpointSpec {
            name: EndpointName::new("payments").unwrap(),
            order: Order::Unordered,
            subscriptions: subscriptions.into(),
        };
        let described = described(&config, &[spec]);
        let topics = [
            "ns.payments.endpoint",
            "ns.shop.pay.command",
            "ns.shop.placed",
        ];
        for (at, (topic, partitions)) in topics.into_iter().zip([1, 12, 12]).enumerate() {
            let found = &described["topics"][at];
            assert_eq!(
                (&found["name"], &found["partitions"]),
                (&json!(topic), &json!(partitions))
            );
            assert_eq!(found["replication"], Value::Null, "the broker's");
            assert_eq!(found["settings"]["retention.ms"], "604800000");
        }
        assert_eq!(
            described["groups"],
            json!([{ "name": "ns.payments", "reads": topics }])
        );
        assert_eq!(described["owners"], "ns.sagabus-owners");
        assert_eq!(described["mode"], "declare");
    }
}
