//! Carries a plan out: two hosts on one thread, who die where the plan says so.

use std::time::Duration;

use futures_util::future::join_all;
use sagabus_core::admin::{DeadLetterFilter, HistoryOf, Page};
use sagabus_core::faults;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Bus, Host, InstanceId, MessageId, RunningHost};
use sagabus_testkit::bus::start;
use sagabus_testkit::store::StoreUnderTest;
use sagabus_testkit::wait::{eventually, grow_older};

use super::judge::{End, Link, Record};
use super::plan::{Burst, KEYS, Plan, Sent, Word};
use super::subject::{Add, Book, Close, Hold, Poke, Release, Till, equip};

/// How long a host has to die before it is said that it never came there.
const DYING: Duration = Duration::from_millis(120);

/// A database for many plans, one after the other.
pub(super) struct World {
    site: StoreUnderTest,
    /// Makes mistakes where it does not.
    cancels: bool,
    hosts: Vec<RunningHost>,
    plans: u32,
    pub(super) messages: u32,
    pub(super) copies: u32,
    pub(super) crashes: u32,
}

/// One message with its identity.
#[derive(Clone)]
struct Letter {
    id: MessageId,
    key: String,
    n: u32,
    sent: Sent,
}

impl World {
    pub(super) fn new(site: StoreUnderTest, cancels: bool) -> Self {
        Self {
            site,
            cancels,
            hosts: Vec::new(),
            plans: 0,
            messages: 0,
            copies: 0,
            crashes: 0,
        }
    }

    /// Carries a plan out, and returns what became of each of its keys.
    pub(super) async fn run(&mut self, plan: &Plan) -> Vec<Record> {
        self.plans += 1;
        let last_dead = self.last_dead_letter().await;
        let letters = self.letters(plan);
        self.start().await;
        for (at, burst) in plan.iter().enumerate() {
            self.burst(at, burst, plan.len(), &letters).await;
        }
        self.quiet().await;
        let mut records = Vec::new();
        for key in 0..KEYS {
            let key = format!("{}-{key}", self.plans);
            records.push(self.record(&key, &letters, last_dead).await);
        }
        records
    }

    pub(super) async fn stop(&mut self) {
        for host in self.hosts.drain(..) {
            host.stop(Duration::ZERO).await;
        }
    }

    fn letters(&mut self, plan: &Plan) -> Vec<Vec<Letter>> {
        let mut numbers = 1..;
        let mut letter = |sent: &Sent| Letter {
            id: MessageId::new(),
            key: format!("{}-{}", self.plans, sent.key),
            n: numbers.next().unwrap_or_default(),
            sent: sent.clone(),
        };
        let burst = |burst: &Burst| burst.sent.iter().map(&mut letter).collect();
        let letters: Vec<Vec<Letter>> = plan.iter().map(burst).collect();
        let all = || letters.iter().flatten();
        self.messages += u32::try_from(all().count()).unwrap();
        let copies: usize = all().map(|one| one.sent.again.len()).sum();
        self.copies += u32::try_from(copies).unwrap();
        letters
    }

    async fn start(&mut self) {
        while self.hosts.len() < 2 {
            let (name, store) = match self.hosts.len() {
                0 => ("here", &self.site.store),
                _ => ("there", &self.site.peer),
            };
            let builder = Host::builder(name).shared_store(store.clone());
            self.hosts.push(start(equip(builder, self.cancels)).await);
        }
    }

    /// Sends what comes at the same time, copies of earlier and later messages among it.
    async fn burst(&mut self, at: usize, burst: &Burst, bursts: usize, letters: &[Vec<Letter>]) {
        let again = letters.iter().flatten().filter(|one| {
            let mut again = one.sent.again.iter();
            again.any(|again| again % bursts == at)
        });
        let all: Vec<&Letter> = letters[at].iter().chain(again).collect();
        faults::crash_at(burst.crash);
        let mut left = self.send(&all).await;
        if burst.crash.is_some() {
            grow_older(DYING).await;
            if faults::has_crashed() {
                self.crashes += 1;
                self.stop().await;
            }
            faults::crash_at(None);
            self.start().await;
        }
        while !left.is_empty() {
            left = self.send(&left).await;
        }
        grow_older(Duration::from_millis(burst.pause)).await;
    }

    /// Sends, and returns what has to be sent again because nobody knows whether it was.
    async fn send<'a>(&self, letters: &[&'a Letter]) -> Vec<&'a Letter> {
        let each = letters.iter().map(|letter| async {
            let bus = self.hosts[letter.sent.host].bus();
            let sent = tokio::time::timeout(Duration::from_secs(2), send(&bus, letter)).await;
            (!matches!(sent, Ok(true))).then_some(*letter)
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn quiet(&self) {
        let look = || async {
            let counts = self.site.admin.counts().await.unwrap();
            (counts.outbox == 0).then_some(())
        };
        eventually("an empty outbox", look).await;
    }

    async fn last_dead_letter(&self) -> Option<i64> {
        let latest = self.site.admin.dead_letters(1).await.unwrap();
        latest.first().map(|dead| dead.id)
    }

    async fn instance(&self, kind: &'static str, key: &str) -> Option<Instance> {
        let (kind, key) = (kind.into(), key.into());
        let id = InstanceId { kind, key };
        self.site.admin.instance(&id).await.unwrap()
    }

    /// Reads all that the database says about a key.
    async fn record(&self, key: &str, letters: &[Vec<Letter>], behind: Option<i64>) -> Record {
        let mine = letters.iter().flatten().filter(|one| one.key == key);
        let named = |one: &Letter| (one.id.to_string(), (one.n, word(one.sent.word).to_owned()));
        let mut record = Record {
            sent: mine.map(named).collect(),
            ..Record::default()
        };
        let (kind, id) = ("till".into(), key.into());
        let of = HistoryOf::Instance(InstanceId { kind, key: id });
        let history = self.site.admin.history(&of, Page::oldest(500)).await;
        record.chain = history.unwrap().iter().filter_map(link).collect();
        record.chain.sort_by_key(|link| link.version);
        let any = DeadLetterFilter::default();
        let page = Page::oldest(500).behind(behind);
        for dead in self.site.admin.find_dead_letters(&any, page).await.unwrap() {
            let is_mine = String::from_utf8_lossy(&dead.envelope.body).contains(&quoted(key));
            if is_mine {
                record
                    .dead
                    .push((dead.envelope.id.to_string(), dead.reason));
            }
        }
        if let Some(book) = self.instance("book", key).await {
            let book: Book = serde_json::from_slice(&book.data).unwrap();
            record.lines = book.lines;
        }
        if let Some(till) = self.instance("till", key).await {
            let (end, kept) = opened(&till);
            (record.end, record.kept) = (Some(end), kept);
        }
        record
    }
}

/// Returns how a key stands in a body.
fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}

/// Reads a stored till: what it holds, and which messages it keeps for later.
fn opened(stored: &Instance) -> (End, Vec<String>) {
    let json: serde_json::Value = serde_json::from_slice(&stored.data).unwrap();
    let is_plain = json.get("$saga").is_none();
    let data = if is_plain { &json } else { &json["data"] };
    let till: Till = serde_json::from_value(data.clone()).unwrap();
    let kept = json["$saga"]["deferred"].as_array().cloned();
    let id = |kept: &serde_json::Value| kept["id"].as_str().unwrap_or_default().to_owned();
    let end = End {
        version: stored.version,
        is_running: stored.status == InstanceStatus::Running,
        sum: till.sum,
        fired: till.fired,
        timers: stored.timers.len(),
    };
    (end, kept.iter().flatten().map(id).collect())
}

/// Returns a transition; `None` for what moved nothing.
fn link(stored: &sagabus_core::admin::StoredHistory) -> Option<Link> {
    let (entry, detail) = (&stored.entry, &stored.entry.detail);
    let (_, version) = entry.instance.as_ref()?;
    let word = entry
        .message_type
        .strip_prefix("tills.")
        .unwrap_or_default();
    Some(Link {
        version: *version,
        message: entry.message_id.to_string(),
        word: word.to_owned(),
        from: detail.state_from.as_deref().map(str::to_owned),
        to: detail.state_to.as_deref().map(str::to_owned),
    })
}

fn word(word: Word) -> &'static str {
    match word {
        Word::Add => "add",
        Word::Hold => "hold",
        Word::Release => "release",
        Word::Poke => "poke",
        Word::Close => "close",
    }
}

/// Sends, and says whether it is known to be stored.
async fn send(bus: &Bus, letter: &Letter) -> bool {
    let Letter { id, key, n, sent } = letter;
    let (key, n) = (key.clone(), *n);
    let sent = match sent.word {
        Word::Add => bus.send(Add { key, n }).with_id(*id).await,
        Word::Hold => bus.send(Hold { key, n }).with_id(*id).await,
        Word::Release => bus.send(Release { key, n }).with_id(*id).await,
        Word::Poke => bus.send(Poke { key, n }).with_id(*id).await,
        Word::Close => bus.send(Close { key, n }).with_id(*id).await,
    };
    sent.is_ok()
}
