//! One set-up: a database of this run's own, and what carries the messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use sagabus::{PgStore, SqliteStore};
use sagabus_testkit::amqp_proxy::AmqpProxy;
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::kafka_proxy::KafkaProxy;
use sagabus_testkit::mishap::Mishaps;
use sagabus_testkit::postgres_proxy::{Mode, Places, Proxy};
use sagabus_testkit::postgres_server::PostgresServer;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::carrier::Carrier;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::doubt::Doubt;
use crate::fault::Fault;
use crate::publications::Publications;
use crate::service::LEASE;

/// What is tested together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SetUp {
    /// PostgreSQL alone.
    Postgres,
    /// A SQLite file alone.
    Sqlite,
    /// PostgreSQL and RabbitMQ.
    Rabbitmq,
    /// PostgreSQL and Kafka.
    Kafka,
}

/// The tables that the workload writes. No constraint that could hide a duplicate.
const TABLES: [&str; 2] = [
    "create table transfer (id bigint not null, cents bigint not null)",
    "create table ledger (transfer bigint not null, leg text not null, cents bigint not null)",
];

/// Puts tables there that are made from now on.
const TABLES_APART: &str = "alter role postgres set default_tablespace = 'apart'";

/// The database; a server ends when this is dropped.
pub(crate) enum Engine {
    Sqlite(PathBuf),
    Postgres {
        server: PostgresServer,
        proxy: Proxy,
        doubt: Arc<Doubt>,
    },
}

/// The broker; it ends when this is dropped.
pub(crate) enum Broker {
    None,
    RabbitMq(RabbitMqBroker),
    Kafka(KafkaBroker),
}

/// What stands before the broker, for as long as it is kept.
enum Link {
    None,
    RabbitMq { _proxy: AmqpProxy },
    Kafka { _proxy: KafkaProxy },
}

/// Whether a fault can happen in a set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Can {
    Do,
    /// There is nothing here that it could strike.
    NotHere,
    /// It could, and something is missing.
    NotRun(String),
}

/// A running set-up.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) broker: Broker,
    pub(crate) carrier: Option<Carrier>,
    pub(crate) publications: Arc<Publications>,
    /// Where the database is, if a disk of its own.
    pub(crate) disk: Option<Disk>,
    /// The clock of one host.
    pub(crate) clock: Option<Clock>,
    /// Why there is no disk, or no clock.
    missing: BTreeMap<Fault, String>,
    _link: Link,
}

impl Site {
    /// Makes one; `None`, with a word, where there is nothing to make it of.
    pub(crate) async fn open(
        set_up: SetUp,
        folder: &Path,
        faults: &[Fault],
        seed: u64,
    ) -> Result<Option<Self>> {
        let is_wanted = |fault| faults.contains(&fault);
        let are_cut = is_wanted(Fault::CutPublications);
        let publications = Arc::new(Publications::new(seed, are_cut));
        let Some((broker, link, carrier)) = carried(set_up, &publications).await else {
            return Ok(None);
        };
        let mut missing = BTreeMap::new();
        // The clock of a SQLite database is the machine's, which all its processes share.
        let has_clock = set_up != SetUp::Sqlite;
        let clock = (has_clock && is_wanted(Fault::StepClock)).then(|| {
            let host = usize::try_from(seed % 4).unwrap_or_default();
            let clock = Clock::of(host, folder, set_up == SetUp::Kafka);
            let note = |why| missing.insert(Fault::StepClock, why);
            clock.map_err(note).ok()
        });
        let clock = clock.flatten();
        let mut disk = |place: &Path, owner: &Path| {
            let mounted = is_wanted(Fault::FillDisk).then(|| Disk::mount(place, owner))?;
            let note = |why| missing.insert(Fault::FillDisk, why);
            mounted.map_err(note).ok()
        };
        let (engine, disk) = match set_up {
            SetUp::Sqlite => sqlite(folder, disk(&folder.join("disk"), folder)).await?,
            SetUp::Postgres | SetUp::Rabbitmq | SetUp::Kafka => {
                let Some(server) = blocking(PostgresServer::make) else {
                    return Ok(None);
                };
                let disk = place_of_disk(&server).and_then(|place| {
                    let mounted = disk(&place.outside, &place.owner)?;
                    Some((mounted, place.inside))
                });
                let are_cut = is_wanted(Fault::CutCommits);
                postgres(server, disk, Doubt::new(seed, are_cut)).await?
            }
        };
        Ok(Some(Self {
            engine,
            broker,
            carrier,
            publications,
            disk,
            clock,
            missing,
            _link: link,
        }))
    }

    /// Says whether a fault can happen here.
    pub(crate) fn can(&self, fault: Fault) -> Can {
        let is_here = match fault {
            Fault::Kill | Fault::Freeze | Fault::Terminate => true,
            Fault::StepClock if matches!(self.engine, Engine::Sqlite(_)) => false,
            Fault::FillDisk | Fault::StepClock => {
                return self
                    .missing
                    .get(&fault)
                    .cloned()
                    .map_or(Can::Do, Can::NotRun);
            }
            Fault::EndConnections
            | Fault::CutConnections
            | Fault::CutCommits
            | Fault::CrashDatabase => matches!(self.engine, Engine::Postgres { .. }),
            Fault::KillBroker | Fault::CutPublications | Fault::StallPublication => {
                !matches!(self.broker, Broker::None)
            }
        };
        if is_here { Can::Do } else { Can::NotHere }
    }

    /// The database as hosts reach it.
    pub(crate) fn database(&self) -> String {
        match &self.engine {
            Engine::Sqlite(path) => path.display().to_string(),
            Engine::Postgres { proxy, .. } => {
                format!("postgres://postgres@{}/postgres", proxy.address())
            }
        }
    }

    /// Lets the broker write what it knows of its queues: one that is killed within seconds of a
    /// declaration starts anew.
    pub(crate) fn settle_broker(&self) {
        if let Broker::RabbitMq(broker) = &self.broker {
            blocking(|| {
                broker.control(&["stop_app"]);
                broker.control(&["start_app"]);
            });
        }
    }

    /// Kills the broker, and starts it again.
    pub(crate) fn kill_broker(&mut self) {
        match &mut self.broker {
            Broker::None => {}
            Broker::RabbitMq(broker) => blocking(|| {
                broker.kill();
                broker.restart();
            }),
            Broker::Kafka(broker) => blocking(|| broker.restart()),
        }
    }

    /// Holds a publication for longer than a lease.
    pub(crate) fn stall_publication(&self, dice: &mut Dice) {
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        self.publications
            .hold(dice.millis(lease * 6 / 5, lease * 5 / 2));
    }

    /// Cuts every connection to the database, once; returns how many there were.
    pub(crate) async fn cut_connections(&self) -> u64 {
        let Engine::Postgres { proxy, .. } = &self.engine else {
            return 0;
        };
        let before = proxy.cut();
        proxy.set(Mode::Refuse).await;
        proxy.set(Mode::Pass).await;
        proxy.cut() - before
    }
}

/// Starts the broker behind its proxy; `None`, with a word, where there is nothing to make it of.
async fn carried(
    set_up: SetUp,
    publications: &Arc<Publications>,
) -> Option<(Broker, Link, Option<Carrier>)> {
    let mishaps: Arc<dyn Mishaps> = Arc::clone(publications) as _;
    match set_up {
        SetUp::Postgres | SetUp::Sqlite => Some((Broker::None, Link::None, None)),
        SetUp::Rabbitmq => {
            let broker = blocking(RabbitMqBroker::start)?;
            let proxy = AmqpProxy::start_with(broker.address(), Some(mishaps)).await;
            let carrier = Carrier::rabbitmq(proxy.url(&broker.url()));
            Some((
                Broker::RabbitMq(broker),
                Link::RabbitMq { _proxy: proxy },
                Some(carrier),
            ))
        }
        SetUp::Kafka => {
            let proxy = KafkaProxy::listen(mishaps).await;
            let broker = blocking(|| KafkaBroker::start_behind(proxy.address().port()))?;
            proxy.lead_to(broker.address());
            let carrier = Carrier::kafka(proxy.address().to_string());
            Some((
                Broker::Kafka(broker),
                Link::Kafka { _proxy: proxy },
                Some(carrier),
            ))
        }
    }
}

/// Where a server's tables may be on a disk of their own.
struct Place {
    outside: PathBuf,
    inside: PathBuf,
    owner: PathBuf,
}

fn place_of_disk(server: &PostgresServer) -> Option<Place> {
    let beside = |data: &Path| {
        let mut place = data.as_os_str().to_owned();
        place.push("-disk");
        PathBuf::from(place)
    };
    let (outside, inside) = server.data()?;
    Some(Place {
        outside: beside(&outside),
        inside: beside(&inside),
        owner: outside,
    })
}

async fn sqlite(folder: &Path, disk: Option<Disk>) -> Result<(Engine, Option<Disk>)> {
    let folder = if disk.is_some() {
        folder.join("disk")
    } else {
        folder.to_owned()
    };
    let path = folder.join("bus.db");
    SqliteStore::open(&path).await?.migrate().await?;
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await?;
    for table in TABLES {
        connection.execute(table).await?;
    }
    Ok((Engine::Sqlite(path), disk))
}

async fn postgres(
    server: PostgresServer,
    disk: Option<(Disk, PathBuf)>,
    doubt: Doubt,
) -> Result<(Engine, Option<Disk>)> {
    blocking(|| server.restart());
    let disk = match disk {
        Some((disk, place)) => {
            let mut connection = PgConnection::connect(&server.url()).await?;
            let make = format!("create tablespace apart location '{}'", place.display());
            connection.execute(AssertSqlSafe(make)).await?;
            connection.execute(TABLES_APART).await?;
            Some(disk)
        }
        None => None,
    };
    PgStore::connect(&server.url()).await?.migrate().await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    for table in TABLES {
        connection.execute(table).await?;
    }
    let place = "select array_position(proargnames, 'h_message') - 1 from pg_proc \
        where proname = $1 and pronamespace = 'sagabus'::regnamespace";
    let names = ["commit_v1", "commit_smooth_v1", "commit_one_v1"];
    let mut places = [0; 3];
    for (found, name) in places.iter_mut().zip(names) {
        let at: i32 = sqlx::query_scalar(place)
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        *found = usize::try_from(at)?;
    }
    let places = Places {
        many: places[0],
        smooth: places[1],
        one: places[2],
    };
    let doubt = Arc::new(doubt.about(&server.url()));
    let address: SocketAddr = server.address();
    let proxy = Proxy::start(address, places, Some(doubt.clone())).await;
    let engine = Engine::Postgres {
        server,
        proxy,
        doubt,
    };
    Ok((engine, disk))
}

/// Runs what blocks, while the other threads of this program go on.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
