//! A payment service, its gateway, and its ledger.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use sagabus::RunningHost;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

#[derive(Command, Serialize, Deserialize)]
#[message("payments.charge")]
struct Charge {
    order: u32,
    bank: String,
    cents: i64,
}

/// The same, as somebody sent it by hand: the cents were forgotten.
#[derive(Command, Serialize, Deserialize)]
#[message("payments.charge")]
struct ChargeByHand {
    order: u32,
    bank: String,
}

/// Whom the gateway lets down.
#[derive(Clone, Default)]
pub(crate) struct Gateway(Arc<Mutex<Option<&'static str>>>);

impl Gateway {
    pub(crate) fn lose(&self, bank: &'static str) {
        *self.lost() = Some(bank);
    }

    pub(crate) fn repair(&self) {
        *self.lost() = None;
    }

    fn answers(&self, bank: &str) -> bool {
        *self.lost() != Some(bank)
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, Option<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn charge(command: Charge, gateway: State<Gateway>, mut tx: Tx<Sqlite>) -> sagabus::Result {
    if !gateway.answers(&command.bank) {
        let error = format!("bank north: no certificate for order {}", command.order);
        return Err(std::io::Error::other(error).into());
    }
    sqlx::query("insert into charge (order_id, cents) values ($1, $2)")
        .bind(command.order)
        .bind(command.cents)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

/// The service while it runs.
pub(crate) struct Shop {
    store: SqliteStore,
    host: RunningHost,
    gateway: Gateway,
}

impl Shop {
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let store = SqliteStore::open(path).await?;
        store.migrate().await?;
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await?;
        sqlx::query("create table charge (order_id integer not null, cents integer not null)")
            .execute(&mut connection)
            .await?;
        let gateway = Gateway::default();
        let host = Host::builder("shop")
            .store(store.clone())
            .state(gateway.clone())
            // Asking the gateway for its certificate charges nobody, and SQL through `Tx` is undone.
            .endpoint("payments", |e| {
                let payments = e.retry(Retry::none()).handle(charge);
                payments.rehearses::<Charge>()
            })
            .build()?
            .start()
            .await?;
        Ok(Self {
            store,
            host,
            gateway,
        })
    }

    pub(crate) fn store(&self) -> &SqliteStore {
        &self.store
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Asks for the money of an order, and waits until that was handled or given up.
    pub(crate) async fn charge(&self, order: u32, bank: &str) -> Result<()> {
        let bank = bank.to_owned();
        let cents = 4200;
        let charge = Charge { order, bank, cents };
        self.host.bus().send(charge).await?;
        self.is_idle().await
    }

    /// The same by hand, with a mistake.
    pub(crate) async fn charge_by_hand(&self, order: u32) -> Result<()> {
        let bank = "south".to_owned();
        self.host.bus().send(ChargeByHand { order, bank }).await?;
        self.is_idle().await
    }

    /// Waits until nothing is to be handled.
    pub(crate) async fn is_idle(&self) -> Result<()> {
        while self.store.counts().await?.outbox > 0 {
            tokio::time::sleep(1.millis()).await;
        }
        Ok(())
    }

    /// Counts how many orders were charged, how many of them more than once, and all cents.
    pub(crate) async fn ledger(&self) -> Result<(i64, i64, i64)> {
        let text = "select count(*), coalesce(sum(n > 1), 0), coalesce(sum(cents), 0) from \
            (select count(*) as n, sum(cents) as cents from charge group by order_id)";
        Ok(sqlx::query_as(text).fetch_one(self.store.reader()).await?)
    }

    /// Ends the service.
    pub(crate) async fn stop(self) {
        self.host.stop(5.secs()).await;
    }
}
