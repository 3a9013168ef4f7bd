//! What must be true when everything is quiet, whatever went wrong before.

use std::collections::BTreeMap;

use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{EndpointName, InstanceId};

use crate::messages::{Account, TRANSFER, cannot_be_noted, expected};
use crate::service::Site;
use crate::world::{Entry, World};

/// The endpoints of the service.
const ENDPOINTS: [&str; 6] = [
    "transfers",
    "debits",
    "credits",
    "settled",
    "notes",
    "accounts",
];

/// Says whether everything that was asked for is done, and nothing waits.
pub(crate) async fn is_quiet(site: &Site, transfers: i64) -> bool {
    let counts = site.database.memory.counts().await.unwrap_or_default();
    let is_done = counts.outbox == 0 && counts.completed >= transfers.unsigned_abs();
    is_done && waiting_at_broker(site) == 0
}

fn waiting_at_broker(site: &Site) -> usize {
    let Some(broker) = &site.broker else {
        return 0;
    };
    let names = ENDPOINTS
        .iter()
        .filter_map(|name| EndpointName::new(name).ok());
    let depths = names.map(|name| broker.depth(&name));
    depths.map(|(waiting, in_hand)| waiting + in_hand).sum()
}

/// Lists everything that is wrong.
pub(crate) async fn judge(world: &World, site: &Site, transfers: i64) -> Vec<String> {
    let memory = &site.database.memory;
    let (mut wrongs, ledger) = {
        let mut inner = world.lock();
        for id in inner.published.keys() {
            if !inner.written.contains(id) {
                let wrong = format!("I-4: message {id} was published and no unit sent it");
                return vec![wrong];
            }
        }
        (std::mem::take(&mut inner.wrongs), inner.ledger.clone())
    };
    if !is_quiet(site, transfers).await {
        let counts = memory.counts().await;
        let broker = waiting_at_broker(site);
        wrongs.push(format!(
            "I-7: never quiet: {counts:?}, {broker} at the broker"
        ));
    }
    judge_ledger(&ledger, transfers, &mut wrongs);
    judge_accounts(memory, transfers, &mut wrongs).await;
    judge_dead_letters(memory, transfers, &mut wrongs).await;
    judge_chains(memory, transfers, &mut wrongs).await;
    wrongs
}

/// Every leg of every transfer, each exactly once; notes in their order.
fn judge_ledger(ledger: &[Entry], transfers: i64, wrongs: &mut Vec<String>) {
    let mut legs: BTreeMap<i64, Vec<(&str, i64)>> = BTreeMap::new();
    let mut notes: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (id, leg, cents) in ledger {
        match *leg {
            "note" => notes.entry(*id).or_default().push(*cents),
            leg => legs.entry(*id).or_default().push((leg, *cents)),
        }
    }
    for id in 0..transfers {
        let mut found = legs.remove(&id).unwrap_or_default();
        found.sort_unstable();
        if found != expected(id) {
            let expected = expected(id);
            wrongs.push(format!(
                "I-1: transfer {id} has {found:?}, not {expected:?}"
            ));
        }
        let noted = notes.remove(&id).unwrap_or_default();
        if noted != [1, 2, 3] {
            wrongs.push(format!("order: transfer {id} was noted as {noted:?}"));
        }
    }
    let sum: i64 = ledger
        .iter()
        .filter(|one| one.1 != "note")
        .map(|one| one.2)
        .sum();
    if sum != 0 {
        wrongs.push(format!("money: {sum} cents too many"));
    }
    if !legs.is_empty() {
        wrongs.push(format!("I-4: transfers that nobody asked for: {legs:?}"));
    }
}

/// Every settlement in its account's data, once.
async fn judge_accounts(memory: &MemoryStore, transfers: i64, wrongs: &mut Vec<String>) {
    let mut settled = Vec::new();
    for key in ["0", "1"] {
        let id = InstanceId {
            kind: "account".into(),
            key: key.into(),
        };
        let found = memory.instance(&id).await.ok().flatten();
        let account = found.map(|one| serde_json::from_slice::<Account>(&one.data));
        match account {
            Some(Ok(account)) => settled.extend(account.settled),
            Some(Err(error)) => wrongs.push(format!("I-8: account {key}: {error}")),
            None => {}
        }
    }
    settled.sort_unstable();
    if settled != (0..transfers).collect::<Vec<_>>() {
        wrongs.push(format!("I-8: accounts were told {settled:?}"));
    }
}

/// One dead letter for each that can never be handled, and no other.
async fn judge_dead_letters(memory: &MemoryStore, transfers: i64, wrongs: &mut Vec<String>) {
    let found = memory.dead_letters(1000).await.unwrap_or_default();
    let mut dead: Vec<String> = found
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one.endpoint,
                String::from_utf8_lossy(&one.envelope.body)
            )
        })
        .collect();
    dead.sort_unstable();
    let due = (0..transfers).filter(|id| cannot_be_noted(*id));
    let mut due: Vec<_> = due.map(|id| format!("settled {{\"id\":{id}}}")).collect();
    due.sort_unstable();
    if dead != due {
        for one in &found {
            let tries = one.attempts.iter().map(|one| one.error.as_str());
            let tries: Vec<_> = tries.collect();
            wrongs.push(format!(
                "  {} is dead: {}, {tries:?}",
                String::from_utf8_lossy(&one.envelope.body),
                one.reason
            ));
        }
        wrongs.push(format!("I-7: dead letters are {dead:?}, not {due:?}"));
    }
}

/// Each transfer's history is one chain of versions without gap or fork.
async fn judge_chains(memory: &MemoryStore, transfers: i64, wrongs: &mut Vec<String>) {
    let mut chains: BTreeMap<InstanceId, Vec<i64>> = BTreeMap::new();
    for entry in memory.history() {
        if let Some((id, version)) = entry.instance {
            chains.entry(id).or_default().push(version);
        }
    }
    for (id, mut versions) in chains {
        versions.sort_unstable();
        let last = memory.instance(&id).await.ok().flatten();
        let last = last.map_or(0, |instance| instance.version);
        let is_chain = versions == (1..=last).collect::<Vec<_>>();
        let is_ours =
            &*id.kind != TRANSFER || id.key.parse::<i64>().is_ok_and(|key| key < transfers);
        if !is_chain || !is_ours {
            wrongs.push(format!("I-8: {id} went through {versions:?} to {last}"));
        }
    }
}
