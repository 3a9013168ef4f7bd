//! Cuts connections at commit calls, and asks the database what became of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_testkit::postgres_proxy::{Call, Cut, Director};
use sqlx::{Connection, PgConnection};

use crate::dice::Dice;

/// How long the database may take to answer; it may be down.
const PATIENCE: Duration = Duration::from_secs(3);
const HAS: &str = "select exists (select from sagabus.history where message_id = any($1))";

/// The commits that were made doubtful.
#[derive(Debug)]
pub(crate) struct Doubt {
    url: String,
    dice: Mutex<Dice>,
    /// One of so many calls is cut.
    one_of: u64,
    seen: Mutex<BTreeMap<&'static str, u64>>,
}

impl Doubt {
    /// Cuts nothing where that is not wanted.
    pub(crate) fn new(seed: u64, are_cut: bool) -> Self {
        Self {
            url: String::new(),
            dice: Mutex::new(Dice::new(seed)),
            one_of: if are_cut { 40 } else { u64::MAX },
            seen: Mutex::default(),
        }
    }

    /// Asks this database.
    pub(crate) fn about(self, url: &str) -> Self {
        let url = url.to_owned();
        Self { url, ..self }
    }

    /// What was cut, and whether it had committed.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    async fn had_committed(&self, call: &Call) -> Option<bool> {
        let ask = async {
            let mut connection = PgConnection::connect(&self.url).await.ok()?;
            let handled: Vec<_> = call.handled.iter().copied().collect();
            let query = sqlx::query_scalar(HAS).bind(handled);
            query.fetch_one(&mut connection).await.ok()
        };
        tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
    }
}

impl Director for Doubt {
    fn decide(&self, _: &Call) -> Option<Cut> {
        let mut dice = self.dice.lock().expect("nobody panics with it");
        let is_chosen = dice.below(self.one_of) == 0;
        let cut = match dice.below(4) {
            0 | 1 => Cut::BeforeServer,
            2 => Cut::BeforeAnswer,
            _ => Cut::Meanwhile,
        };
        is_chosen.then_some(cut)
    }

    fn look(&self, call: Call, _: Cut) -> BoxFuture<'_, ()> {
        async move {
            let what = match self.had_committed(&call).await {
                Some(true) => "commit in doubt, had committed",
                Some(false) => "commit in doubt, had not",
                None => "commit in doubt, nobody could tell",
            };
            let mut seen = self.seen.lock().expect("nobody panics with it");
            *seen.entry(what).or_default() += 1;
        }
        .boxed()
    }
}
