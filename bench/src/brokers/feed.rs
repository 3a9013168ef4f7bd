//! Messages that wait on a broker for the endpoint of the bench.

use anyhow::Result;
use sagabus_core::StoreId;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::message::{Kind, Message};
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Publication, address};
use uuid::Uuid;

use super::target::Target;
use crate::bare::inlet::{Acks, Inlet};
use crate::services::Place;
use crate::source::envelope;
use crate::workload::{Charge, Close, Credit, ENDPOINT, account_of, nth_message};

/// Messages that are published at once.
const WINDOW: u64 = 1_000;

/// What waits.
pub(crate) struct Feed {
    pub(crate) total: u64,
    /// Addresses of charges, of credits and of what closes.
    topics: Vec<String>,
}

impl Feed {
    /// Declares the endpoint as a host of ours does, and publishes `total` messages to it.
    pub(crate) async fn write(target: &mut Target, place: &Place, total: u64) -> Result<Self> {
        let transport = target.transport();
        let mut connection = place.postgres().await?;
        let store: Uuid = sqlx::query_scalar("select id from sagabus.store")
            .fetch_one(&mut connection)
            .await?;
        transport
            .declare(StoreId::from_uuid(store), &[spec()?])
            .await?;
        let types = [Charge::TYPE, Credit::TYPE, Close::TYPE];
        let topics = types.map(|name| target.name("command", name)).to_vec();
        target.adopt_endpoint(ENDPOINT, &topics);
        let mut at = 0;
        while at < total {
            let end = total.min(at + WINDOW);
            let window: Vec<Publication> = (at..end).map(publication).collect();
            for answer in transport.publish(&window).await {
                answer?;
            }
            at = end;
        }
        Ok(Self { total, topics })
    }

    /// Opens the way in of a program by hand.
    pub(crate) async fn inlet(&self, target: &Target) -> Result<(Inlet, Acks)> {
        target.inlet(ENDPOINT, &self.topics[..2]).await
    }

    /// Returns how many messages wait still: of those that the endpoint has not acked.
    pub(crate) async fn left(&self, target: &Target) -> Result<i64> {
        target.left(ENDPOINT, &self.topics[..2]).await
    }
}

fn spec() -> Result<EndpointSpec> {
    let types = [Charge::TYPE, Credit::TYPE, Close::TYPE];
    let subscriptions = types.map(|message_type| Subscription {
        message_type: message_type.into(),
        kind: Kind::Command,
    });
    Ok(EndpointSpec {
        name: EndpointName::new(ENDPOINT)?,
        order: Order::Unordered,
        subscriptions: subscriptions.to_vec(),
    })
}

fn publication(n: u64) -> Publication {
    let raw = nth_message(n);
    Publication {
        address: address(Kind::Command, raw.message_type),
        key: Some(account_of(n)),
        envelope: envelope(raw),
    }
}
