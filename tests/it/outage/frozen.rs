//! A server's process that is stopped with a commit call in its hands, and goes on when the call
//! has been made again by another one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::process::{Pid, test_kill_process};
use sagabus::PgStore;
use sagabus_testkit::wait::grow_older;

use crate::databases::say;

use super::site::{Dice, History, Site, run, send};
use sagabus_testkit::postgres_proxy::{Call, Cut, Director};

/// So many calls of each outcome, at least.
const EACH_MIN: usize = 20;
/// How many calls are frozen at most.
const FROZEN_MAX: usize = 80;
/// How long one that another call waits for stays so: its locks hold up every other call.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the database is asked.
const PACE: Duration = Duration::from_millis(10);

/// Freezes one call after the other.
struct Freezer {
    history: History,
    dice: Mutex<Dice>,
    started: AtomicUsize,
    ended: AtomicUsize,
    /// Calls whose message had been answered by another process when theirs went on: they came too
    /// late.
    overtaken: AtomicUsize,
    /// Calls whose message nobody had answered when theirs went on, and which had answered it when
    /// they ended: whoever made them again came too late.
    kept: AtomicUsize,
    /// The one that is frozen was overtaken.
    is_overtaken: AtomicBool,
}

impl Freezer {
    fn new(history: History) -> Arc<Self> {
        Arc::new(Self {
            history,
            dice: Mutex::new(Dice::new(19)),
            started: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            overtaken: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            is_overtaken: AtomicBool::new(false),
        })
    }

    /// Counts the calls that came too late, and those that did not.
    fn seen(&self) -> [usize; 2] {
        [&self.overtaken, &self.kept].map(|count| count.load(Ordering::SeqCst))
    }
}

impl Director for Freezer {
    fn decide(&self, _: &Call) -> Option<Cut> {
        let (started, ended) = (&self.started, &self.ended);
        let so_far = started.load(Ordering::SeqCst);
        let seen = self.seen();
        let is_enough = seen.iter().all(|count| *count >= EACH_MIN) || so_far >= FROZEN_MAX;
        if is_enough || ended.load(Ordering::SeqCst) < so_far {
            return None;
        }
        let mut dice = self.dice.lock().expect("nobody panics with it");
        if dice.below(3) > 0 {
            return None;
        }
        let taken =
            started.compare_exchange(so_far, so_far + 1, Ordering::SeqCst, Ordering::SeqCst);
        taken.ok()?;
        self.is_overtaken.store(false, Ordering::SeqCst);
        // What is stopped before it has the call is overtaken, mostly; what has its locks is not.
        let [late, kept] = seen.map(|count| count >= EACH_MIN);
        let is_before = !late && (kept || dice.below(2) == 0);
        Some(match is_before {
            true => Cut::FrozenBefore,
            false => Cut::FrozenMeanwhile,
        })
    }

    fn while_frozen(&self, call: Call) -> BoxFuture<'_, ()> {
        async move {
            let mut waited = Duration::ZERO;
            while waited < PATIENCE {
                if self.history.has_any(call.handled.iter().copied()).await {
                    self.overtaken.fetch_add(1, Ordering::SeqCst);
                    self.is_overtaken.store(true, Ordering::SeqCst);
                    return;
                }
                grow_older(PACE).await;
                waited += PACE;
            }
        }
        .boxed()
    }

    fn look(&self, call: Call, _: Cut) -> BoxFuture<'_, ()> {
        async move {
            let was_overtaken = self.is_overtaken.load(Ordering::SeqCst);
            if !was_overtaken && self.history.has_any(call.handled).await {
                self.kept.fetch_add(1, Ordering::SeqCst);
            }
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
        .boxed()
    }
}

#[test]
fn a_call_that_a_stopped_server_makes_late_changes_nothing() {
    const TRANSFERS: i64 = 300;
    run(async {
        let Some(site) = Site::open("frozen").await else {
            return;
        };
        let process = site.number("select pg_backend_pid()").await;
        let process = i32::try_from(process).ok().and_then(Pid::from_raw);
        if test_kill_process(process.expect("a process has a number")).is_err() {
            println!(
                "SKIPPED: the server's processes are not ours to stop, or not on this machine"
            );
            return;
        }
        let freezer = Freezer::new(site.history());
        let proxy = site.proxy(Some(freezer.clone())).await;
        let store = PgStore::connect(&site.behind(&proxy)).await;
        let store = store.expect("the proxy passes on");
        let host = site.start(&store).await;
        send(&host.bus(), 0..TRANSFERS).await;
        let effects = site.judge(&host, TRANSFERS).await;
        let frozen = freezer.ended.load(Ordering::SeqCst);
        let [overtaken, kept] = freezer.seen();
        let resubmitted = host.counters().resubmitted.get();
        say(&format!(
            "frozen servers: {frozen} calls went on late, {overtaken} of them after another had \
             committed, {kept} before; resubmitted {resubmitted}; effects {effects}, lost 0, \
             duplicated 0\n"
        ));
        assert!(overtaken >= EACH_MIN, "{overtaken} came too late");
        assert!(kept >= EACH_MIN, "{kept} came in time");
    });
}
