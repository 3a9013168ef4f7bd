//! A file of its own for each test, and short ways to say what a group has.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sagabus_core::endpoint::{EndpointId, EndpointName, Order};
use sagabus_core::envelope::{Due, Envelope, Identity, Outgoing};
use sagabus_core::message::Kind;
use sagabus_core::store::{
    Attached, Birth, Claim, ClaimFrom, ClaimedRow, CommitReport, EndpointSpec, Group, Place,
    Placement, Registration, Scan, Store, Subscription, Target,
};
use sagabus_core::unit_of_work::{
    HistoryDetail, HistoryEntry, InstanceChange, InstanceStatus, Settle, Source, UnitOfWork,
};
use sagabus_core::{
    Destination, Headers, HostId, InstanceId, Lifecycle, MessageId, Outcome, StoreError,
};
use sagabus_outbox::SqliteStore;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// A directory that goes with its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("sqlite-{}", Uuid::now_v7());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("test.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // What stays is found by the next clean build.
    }
}

/// A migrated store with the endpoints `plain` (unordered) and `keyed` (ordered by key), attached.
pub(crate) struct Bench {
    pub(crate) store: SqliteStore,
    pub(crate) attached: Attached,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) folder: Folder,
}

impl Deref for Bench {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

pub(crate) fn name(name: &str) -> EndpointName {
    EndpointName::new(name).unwrap()
}

pub(crate) fn registration() -> Registration {
    let endpoint = |endpoint, order, message_type: &'static str| EndpointSpec {
        name: name(endpoint),
        order,
        subscriptions: vec![Subscription {
            message_type: message_type.into(),
            kind: Kind::Command,
        }],
    };
    Registration {
        host: HostId::new(),
        host_name: "test".into(),
        endpoints: vec![
            endpoint("plain", Order::Unordered, "test.do"),
            endpoint("keyed", Order::PerKey, "test.do-in-order"),
        ],
        definitions: serde_json::json!({}),
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = Folder::new();
        let store = SqliteStore::open(folder.file()).await.unwrap();
        store.migrate().await.unwrap();
        let lifecycle = Lifecycle::new();
        let attached = store.attach(&registration(), &lifecycle).await.unwrap();
        Self {
            store,
            attached,
            lifecycle,
            folder,
        }
    }

    pub(crate) fn endpoint(&self, endpoint: &str) -> EndpointId {
        self.attached.endpoints[&name(endpoint)]
    }

    pub(crate) fn target(&self, endpoint: &str) -> Target {
        self.attached.routes.endpoints[&name(endpoint)].clone()
    }

    /// A group of units, each outgoing message of which goes to the endpoint that it names.
    pub(crate) fn group(&self, birth: Birth, units: Vec<UnitOfWork>) -> Group {
        let mut placements = Vec::new();
        for (at, unit) in units.iter().enumerate() {
            for (n, outgoing) in unit.outgoing.iter().enumerate() {
                let place = match &outgoing.destination {
                    Destination::Endpoint(name) => Place::Endpoint(self.target(name.as_str())),
                    Destination::Address(address) => Place::Address {
                        address: address.clone(),
                        order: Order::Unordered,
                    },
                    _ => Place::Nowhere,
                };
                placements.push(Placement {
                    unit: at,
                    outgoing: n,
                    place,
                    birth,
                });
            }
        }
        Group {
            units,
            placements,
            settles: Vec::new(),
            routes_version: self.attached.routes.version,
            lease: LEASE,
        }
    }

    pub(crate) async fn commit(&self, units: Vec<UnitOfWork>) -> CommitReport {
        let group = self.group(Birth::Available, units);
        self.store.commit(&group).await.unwrap()
    }

    pub(crate) async fn outcomes(&self, units: Vec<UnitOfWork>) -> Vec<Outcome> {
        self.commit(units).await.outcomes
    }

    pub(crate) async fn settle(&self, settles: Vec<Settle>) {
        let mut group = self.group(Birth::Available, Vec::new());
        group.settles = settles;
        self.store.commit(&group).await.unwrap();
    }

    pub(crate) async fn claim(&self, endpoint: &str, limit: u32) -> Vec<ClaimedRow> {
        self.claim_from(ClaimFrom::Endpoints(vec![(name(endpoint), limit)]))
            .await
    }

    pub(crate) async fn claim_from(&self, from: ClaimFrom) -> Vec<ClaimedRow> {
        let claim = Claim {
            from,
            lease: LEASE,
            scan: Scan::Hot,
        };
        self.store.claim(&claim).await.unwrap()
    }

    /// Asks the file by a connection of its own.
    pub(crate) async fn ask(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(self.store.reader())
            .await
            .unwrap()
    }

    /// Changes the file as another process would.
    pub(crate) async fn change(&self, sql: &str) {
        change(&self.folder.file(), sql).await.unwrap();
    }
}

/// Changes a file by a connection of its own.
pub(crate) async fn change(file: &Path, sql: &str) -> Result<(), sqlx::Error> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let mut connection = options.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

pub(crate) fn setup_text<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Setup(text)) => text,
        other => panic!("a set-up error was expected, not {other:?}"),
    }
}

pub(crate) fn message(body: &str) -> Outgoing {
    let headers: Headers = [("note", "a \"quoted\" ä")].into_iter().collect();
    let envelope = Envelope {
        id: MessageId::new(),
        message_type: "test.do".into(),
        headers,
        body: body.to_owned().into(),
    };
    Outgoing::from_envelope(envelope, Destination::Endpoint(name("plain")))
}

/// A message of one key, to the ordered endpoint.
pub(crate) fn keyed(key: &str, body: &str) -> Outgoing {
    let mut outgoing = message(body).to(Destination::Endpoint(name("keyed")));
    outgoing.key = Some(key.to_owned());
    outgoing
}

pub(crate) fn due(mut outgoing: Outgoing, due: Due) -> Outgoing {
    outgoing.due = due;
    outgoing
}

pub(crate) fn given(mut outgoing: Outgoing, id: MessageId) -> Outgoing {
    outgoing.envelope.id = id;
    outgoing.identity = Identity::Given;
    outgoing
}

pub(crate) fn sends(outgoing: Vec<Outgoing>) -> UnitOfWork {
    UnitOfWork {
        outgoing,
        ..UnitOfWork::default()
    }
}

pub(crate) fn received(endpoint: EndpointId, message_id: MessageId) -> UnitOfWork {
    UnitOfWork {
        sources: vec![Source::Broker {
            endpoint,
            message_id,
        }],
        history: vec![HistoryEntry {
            endpoint,
            message_id,
            message_type: "test.do".into(),
            correlation_id: message_id.into(),
            instance: None,
            detail: HistoryDetail::default(),
        }],
        ..UnitOfWork::default()
    }
}

pub(crate) fn answers(row: &ClaimedRow) -> UnitOfWork {
    UnitOfWork {
        sources: vec![Source::Row(row.row)],
        ..UnitOfWork::default()
    }
}

pub(crate) fn order(key: &str) -> InstanceId {
    InstanceId {
        kind: "order".into(),
        key: key.into(),
    }
}

pub(crate) fn moves(mut unit: UnitOfWork, key: &str, expected: i64) -> UnitOfWork {
    unit.instance = Some(InstanceChange {
        id: order(key),
        expected,
        status: InstanceStatus::Running,
        state: Some("open".into()),
        schema_version: 1,
        data: bytes::Bytes::from_static(b"\x00data"),
        timers: [("deadline".to_owned(), 3)].into(),
        disarmed: Vec::new(),
        origin: None,
        labels: None,
    });
    unit
}

pub(crate) fn bodies(rows: &[ClaimedRow]) -> Vec<&str> {
    let bodies = rows.iter();
    bodies
        .map(|row| std::str::from_utf8(&row.envelope.body).unwrap())
        .collect()
}
