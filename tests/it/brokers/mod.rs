//! One service over RabbitMQ, over Kafka and over both, on PostgreSQL.

mod several;
mod absent;
mod announced;
mod torn;
mod asked;
mod changed;
mod services;
mod suite;

use std::any::Any;

use sagabus::{Host, HostBuilder, Kafka, PgStore};
use sagabus_testkit::amqp_proxy::{AmqpProxy, Mode as AmqpMode};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sqlx::{Connection, Executor, PgConnection};

use crate::kafka::link::{Link, Mode as LinkMode};
use crate::outage::site::Site;
use crate::{kafka, rabbitmq};

/// What handlers write, in the order in which they do.
const APPLIED: &str = "create table applied (id bigserial primary key, what text not null, \
    n bigint not null)";
const ALL: &str = "select count(*) from applied";
const DISTINCT: &str = "select count(*) from (select distinct what, n from applied) as each";

/// Makes a database with the handlers' table; `None`, with a word, where there is no server.
async fn site(name: &str) -> Option<Site> {
    let site = Site::open(name).await?;
    let mut direct = PgConnection::connect(&site.url)
        .await
        .expect("the server answers");
    direct.execute(APPLIED).await.expect("a table can be made");
    Some(site)
}

async fn builder(name: &str, url: &str) -> HostBuilder {
    let store = PgStore::connect(url).await.expect("the server answers");
    Host::builder(name).store(store)
}

/// A broker, and one host's own way to it.
struct Broker {
    name: &'static str,
    /// Makes a transport: by the way that can be cut, or past it.
    reach: Box<dyn Fn(HostBuilder, Way) -> HostBuilder>,
    cut: Box<dyn Fn(bool)>,
    /// Ends with the test.
    _running: Box<dyn Any>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Cuttable,
}

impl Broker {
    async fn rabbitmq() -> Option<Self> {
        let url = rabbitmq::url()?;
        let proxy = std::rc::Rc::new(AmqpProxy::before(&url).await);
        let (namespace, behind) = (rabbitmq::namespace(), proxy.url(&url));
        let reach = move |builder: HostBuilder, way| {
            let url = if way == Way::Direct { &url } else { &behind };
            builder.transport(rabbitmq::transport(url, &namespace))
        };
        let held = std::rc::Rc::clone(&proxy);
        let cut = move |is_cut| {
            held.set(match is_cut {
                true => AmqpMode::Refuse,
                false => AmqpMode::Pass,
            });
        };
        Some(Self {
            name: "rabbitmq",
            reach: Box::new(reach),
            cut: Box::new(cut),
            _running: Box::new(proxy),
        })
    }

    async fn kafka() -> Option<Self> {
        let (link, broker_at) = Link::listen().await;
        let broker = KafkaBroker::start_behind(link.address.port())?;
        broker_at.send_replace(Some(broker.address()));
        let link = std::rc::Rc::new(link);
        let (direct, behind) = (broker.direct().to_string(), link.address.to_string());
        let prefix = kafka::prefix();
        let reach = move |builder: HostBuilder, way| {
            let brokers = if way == Way::Direct { &direct } else { &behind };
            builder.transport(Kafka::new(kafka::config(brokers, &prefix)))
        };
        let held = std::rc::Rc::clone(&link);
        let cut = move |is_cut| {
            held.set(match is_cut {
                true => LinkMode::Refuse,
                false => LinkMode::Pass,
            });
            held.cut();
        };
        Some(Self {
            name: "kafka",
            reach: Box::new(reach),
            cut: Box::new(cut),
            _running: Box::new((broker, broker_at, link)),
        })
    }
}
