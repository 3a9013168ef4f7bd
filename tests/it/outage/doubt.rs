//! Commits whose answer never comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus::PgStore;

use crate::databases::say;

use super::site::{Dice, History, Site, run, send};
use sagabus_testkit::postgres_proxy::{Call, Cut, Director, Door};

/// Cuts of one kind, at most: enough is enough.
const EACH_MAX: usize = 60;

/// Cuts commit calls at random, and asks the database what became of them.
struct Doubt {
    history: History,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    decided: BTreeMap<String, usize>,
    /// By who committed, how it was cut and whether it had committed.
    seen: BTreeMap<(String, bool), usize>,
}

impl Doubt {
    fn new(history: History, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            history,
            state: Mutex::new(State {
                dice: Dice::new(seed),
                decided: BTreeMap::new(),
                seen: BTreeMap::new(),
            }),
        })
    }

    /// Counts the group calls that were cut and had committed, or had not.
    fn count(&self, door: Door, had_committed: bool) -> usize {
        let state = self.state.lock().expect("nobody panics with it");
        let door = format!("{door:?}");
        let of = state.seen.iter();
        of.filter(|((kind, had), _)| *had == had_committed && kind.starts_with(&door))
            .map(|(_, count)| count)
            .sum()
    }
}

impl Director for Doubt {
    fn decide(&self, call: &Call) -> Option<Cut> {
        let mut state = self.state.lock().expect("nobody panics with it");
        let cut = match state.dice.below(8) {
            // Twice as often: some of these calls had been made before, and had committed.
            0 | 1 => Cut::BeforeServer,
            2 => Cut::BeforeAnswer,
            3 => Cut::Meanwhile,
            _ => return None,
        };
        let decided = state
            .decided
            .entry(format!("{:?}{cut:?}", call.door))
            .or_default();
        *decided += 1;
        (*decided <= EACH_MAX).then_some(cut)
    }

    fn look(&self, call: Call, cut: Cut) -> BoxFuture<'_, ()> {
        async move {
            let kind = format!("{:?} {cut:?}", call.door);
            let had_committed = self.history.has_any(call.handled).await;
            let mut state = self.state.lock().expect("nobody panics with it");
            *state.seen.entry((kind, had_committed)).or_default() += 1;
        }
        .boxed()
    }
}

#[test]
fn a_commit_in_doubt_is_resubmitted_and_nothing_is_lost_or_done_twice() {
    const TRANSFERS: i64 = 200;
    run(async {
        let Some(site) = Site::open("doubt").await else {
            return;
        };
        let doubt = Doubt::new(site.history(), 20_260_928);
        let proxy = site.proxy(Some(doubt.clone())).await;
        let store = PgStore::connect(&site.behind(&proxy)).await;
        let store = store.expect("the proxy passes on");
        let host = site.start(&store).await;
        send(&host.bus(), 0..TRANSFERS).await;
        let effects = site.judge(&host, TRANSFERS).await;

        let resubmitted = host.counters().resubmitted.get();
        let seen = format!(
            "{:?}",
            doubt.state.lock().expect("nobody panics with it").seen
        );
        let group = [true, false].map(|had| doubt.count(Door::Group, had));
        let tx = [true, false].map(|had| doubt.count(Door::Tx, had));
        say(&format!(
            "commits in doubt: groups {} had committed, {} had not; `Tx` {} had, {} had not; \
             resubmitted {resubmitted}; effects {effects}, lost 0, duplicated 0; {seen}\n",
            group[0], group[1], tx[0], tx[1],
        ));
        assert!(group[0] >= 20 && group[1] >= 20, "{group:?}");
        assert!(group[0] + group[1] >= 60, "{group:?}");
        assert!(tx[0] >= 10 && tx[1] >= 10, "{tx:?}");
        assert!(resubmitted >= 60, "{resubmitted}");
    });
}
