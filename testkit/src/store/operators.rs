//! What operators read and change, and the audit of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    Action, AuditEntry, AuditFilter, Change, DeadLetterFilter, DeadLetterStatus, PAGE_MAX, Page,
    RowFilter, RowVerb, StoredDeadLetter,
};
use sagabus_core::error::StoreError;
use sagabus_core::id::MessageId;
use sagabus_core::store::Target;
use sagabus_core::unit_of_work::{DeadLetter, Settle};

use super::build::{api, attempts, broker, dead_letter, message};
use super::harness::Harness;
use crate::wait::grow_older;

fn change(action: Action) -> Change {
    Change {
        who: "ada".to_owned(),
        why: "the gateway is back".to_owned(),
        action,
    }
}

pub(super) async fn does(at: &Harness, action: Action) -> Vec<i64> {
    let done = at.admin.change(&change(action)).await;
    done.expect("a change is carried out")
}

/// Does with rows what a verb says.
pub(super) async fn changes(at: &Harness, ids: &[i64], verb: RowVerb) -> Vec<i64> {
    let ids = ids.to_vec();
    does(at, Action::ChangeRows { ids, verb }).await
}

async fn find(at: &Harness, filter: &DeadLetterFilter) -> Vec<StoredDeadLetter> {
    let found = at.admin.find_dead_letters(filter, Page::latest(100)).await;
    found.expect("dead letters are shown")
}

async fn ids(at: &Harness, filter: &DeadLetterFilter) -> Vec<i64> {
    find(at, filter).await.iter().map(|one| one.id).collect()
}

/// Gives a message up at an endpoint, and returns its dead letter's id.
pub(super) async fn dies(at: &Harness, target: &Target, error: &str, key: Option<&str>) -> i64 {
    let envelope = message(target).envelope().clone();
    let dead = DeadLetter {
        attempts: attempts(&[error]),
        key: key.map(str::to_owned),
        ..dead_letter(&target.name, &envelope)
    };
    at.write(broker(target, envelope.id).gives_up(dead)).await;
    ids(at, &DeadLetterFilter::default()).await[0]
}

/// Says which store it is, and that its clock moves.
pub async fn a_store_says_which_it_is(at: Arc<Harness>) {
    let first = at.admin.about().await.expect("it answers");
    assert_eq!(first.store, at.attached.store);
    grow_older(Duration::from_millis(5)).await;
    let second = at.admin.about().await.expect("it answers");
    assert!(second.now > first.now);
    assert_eq!(second.schema_version, first.schema_version);
}

/// Each part of a filter, alone and together; wrong ones let nothing through.
pub async fn dead_letters_are_found_by_what_is_known_of_them(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let first = dies(&at, &orders, "order 17 is unknown", Some("a")).await;
    grow_older(Duration::from_millis(5)).await;
    let between = at.admin.about().await.expect("it answers").now;
    grow_older(Duration::from_millis(5)).await;
    let second = dies(&at, &audit, "no Disk left", None).await;
    let letters = find(&at, &DeadLetterFilter::default()).await;
    assert_eq!(letters.len(), 2);
    let message = letters[1].envelope.id;
    let text = |text: &str| Some(text.to_owned());
    let order_placed = || text("shop.order-placed");
    let cases: Vec<(&str, DeadLetterFilter, Vec<i64>)> = vec![
        ("id", only(|f| f.id = Some(first)), vec![first]),
        (
            "endpoint",
            only(|f| f.endpoint = text("audit")),
            vec![second],
        ),
        ("key", only(|f| f.key = text("a")), vec![first]),
        ("text", only(|f| f.text = text("DISK")), vec![second]),
        ("message", only(|f| f.message = Some(message)), vec![first]),
        ("since", only(|f| f.since = Some(between)), vec![second]),
        ("until", only(|f| f.until = Some(between)), vec![first]),
        ("largest id", only(|f| f.id_max = Some(first)), vec![first]),
        (
            "type",
            only(|f| f.message_type = order_placed()),
            vec![second, first],
        ),
        (
            "reason",
            only(|f| f.reason = text("attempts_exhausted")),
            vec![second, first],
        ),
        (
            "fingerprint",
            only(|f| f.fingerprint = text(UNKNOWN)),
            vec![first],
        ),
        (
            "status",
            only(|f| f.status = Some(DeadLetterStatus::Discarded)),
            vec![],
        ),
        ("wild cards", only(|f| f.text = text("%")), vec![]),
        (
            "key and endpoint",
            only(|f| (f.key, f.endpoint) = (text("a"), text("audit"))),
            vec![],
        ),
        (
            "type and text",
            only(|f| (f.message_type, f.text) = (order_placed(), text("disk"))),
            vec![second],
        ),
    ];
    for (name, filter, expected) in cases {
        shows(&at, name, &filter, &expected).await;
    }
}

/// What failures have in common that name an unknown order.
const UNKNOWN: &str = "attempts_exhausted: order # is unknown";

fn only(set: impl FnOnce(&mut DeadLetterFilter)) -> DeadLetterFilter {
    let mut filter = DeadLetterFilter::any();
    set(&mut filter);
    filter
}

/// List, sum and groups agree on what a filter lets through.
async fn shows(at: &Harness, name: &str, filter: &DeadLetterFilter, expected: &[i64]) {
    assert_eq!(ids(at, filter).await, expected, "{name}");
    let tally = at.admin.count_dead_letters(filter).await;
    let tally = tally.expect("it is counted");
    assert_eq!(tally.count, expected.len() as u64, "{name}");
    assert_eq!(tally.id_max, expected.first().copied(), "{name}");
    let groups = at.admin.dead_letter_groups(filter, 10).await;
    let groups = groups.expect("they are grouped");
    let grouped: u64 = groups.iter().map(|one| one.count).sum();
    assert_eq!(grouped, tally.count, "{name}");
}

/// From either end, without gaps and without repeats.
pub async fn dead_letters_come_in_pages(at: Arc<Harness>) {
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(dies(&at, &at.orders(), "no", None).await);
    }
    let any = DeadLetterFilter::any();
    for (page, is_latest) in [(Page::oldest(2), false), (Page::latest(2), true)] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let found = at.admin.find_dead_letters(&any, page.behind(after)).await;
            let found = found.expect("a page is shown");
            let Some(last) = found.last() else { break };
            assert!(found.len() <= 2);
            after = Some(last.id);
            seen.extend(found.iter().map(|one| one.id));
        }
        if is_latest {
            seen.reverse();
        }
        assert_eq!(seen, expected);
    }
}

/// A list of large bodies costs nothing that is not asked for.
pub async fn bodies_are_read_as_far_as_wanted(at: Arc<Harness>) {
    dies(&at, &at.orders(), "no", None).await;
    at.write(api().sends(message(&at.orders()))).await;
    let whole = br#"{"order":1}"#;
    for (bytes, expected) in [(0, &whole[..0]), (4, &whole[..4]), (100, &whole[..])] {
        let page = Page {
            body_bytes_max: bytes,
            ..Page::latest(1)
        };
        let any = DeadLetterFilter::any();
        let dead = at.admin.find_dead_letters(&any, page).await;
        let dead = dead.expect("it is shown").remove(0);
        assert_eq!(&dead.envelope.body[..], expected);
        assert_eq!(dead.body_bytes, whole.len() as u64);
        let row = at.admin.rows(&RowFilter::default(), page).await;
        let row = row.expect("it is shown").remove(0);
        assert_eq!(&row.envelope.body[..], expected);
        assert_eq!(row.body_bytes, whole.len() as u64);
    }
}

/// Numbers and identities make no groups of their own; the largest comes first.
pub async fn dead_letters_are_grouped_by_endpoint_and_fingerprint(at: Arc<Harness>) {
    dies(&at, &at.orders(), "no disk", None).await;
    for n in 0..3 {
        dies(&at, &at.orders(), &format!("order {n} is unknown"), None).await;
    }
    let last = dies(&at, &at.audit(), "order 9 is unknown", None).await;
    let open = DeadLetterFilter::default();
    let groups = at.admin.dead_letter_groups(&open, 10).await;
    let groups = groups.expect("they are grouped");
    let seen: Vec<_> = groups
        .iter()
        .map(|one| (one.count, one.endpoint.as_str(), one.fingerprint.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (3, "orders", UNKNOWN),
            (1, "audit", UNKNOWN),
            (1, "orders", "attempts_exhausted: no disk"),
        ]
    );
    assert_eq!(groups[1].example, last);
    assert!(groups[0].first_at <= groups[0].last_at);
    let few = at.admin.dead_letter_groups(&open, 1).await;
    assert_eq!(few.expect("they are grouped").len(), 1);
    does(&at, Action::DiscardDeadLetters(vec![last])).await;
    let groups = at.admin.dead_letter_groups(&open, 10).await;
    assert_eq!(groups.expect("they are grouped").len(), 2);
}

/// With its new state, and with everything else as it was.
pub async fn what_is_redriven_or_discarded_stays_readable(at: Arc<Harness>) {
    let redriven = dies(&at, &at.orders(), "no", Some("k")).await;
    let discarded = dies(&at, &at.orders(), "no", None).await;
    let before = find(&at, &DeadLetterFilter::any()).await;
    assert_eq!(
        does(
            &at,
            Action::RedriveDeadLetters(vec![redriven, discarded + 7])
        )
        .await,
        [redriven]
    );
    assert_eq!(
        does(&at, Action::DiscardDeadLetters(vec![redriven, discarded])).await,
        [discarded]
    );
    let expected: Vec<_> = before
        .into_iter()
        .map(|one| StoredDeadLetter {
            status: match one.id == redriven {
                true => DeadLetterStatus::Redriven,
                false => DeadLetterStatus::Discarded,
            },
            ..one
        })
        .collect();
    assert_eq!(find(&at, &DeadLetterFilter::any()).await, expected);
    assert!(find(&at, &DeadLetterFilter::default()).await.is_empty());
    let counts = at.counts().await;
    assert_eq!((counts.dead_letters, counts.outbox), (0, 1));
    assert_eq!(at.claim_one(&at.orders()).await.key.as_deref(), Some("k"));
}

/// Whatever order they are named in.
pub async fn many_are_redriven_in_the_order_in_which_they_died(at: Arc<Harness>) {
    let parcels = at.parcels();
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(dies(&at, &parcels, &format!("no {n}"), Some("a")).await);
    }
    let letters = find(&at, &DeadLetterFilter::default()).await;
    let expected: Vec<MessageId> = letters.iter().rev().map(|one| one.envelope.id).collect();
    let named = vec![ids[2], ids[0], ids[3], ids[1], ids[0]];
    assert_eq!(does(&at, Action::RedriveDeadLetters(named)).await, ids);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let head = at.claim_one(&parcels).await;
        seen.push(head.envelope.id);
        at.settle([Settle::Delete(head.row)]).await;
    }
    assert_eq!(seen, expected);
}

/// Unless the same message died anew meanwhile, or is discarded twice.
pub async fn a_discarded_dead_letter_can_be_restored_once(at: Arc<Harness>) {
    let orders = at.orders();
    let envelope = message(&orders).envelope().clone();
    let mut discarded = Vec::new();
    for _ in 0..2 {
        let dead = dead_letter(&orders.name, &envelope);
        at.write(api().gives_up(dead)).await;
        let id = ids(&at, &DeadLetterFilter::default()).await[0];
        assert_eq!(does(&at, Action::DiscardDeadLetters(vec![id])).await, [id]);
        discarded.push(id);
    }
    let both = Action::RestoreDeadLetters(discarded.clone());
    assert_eq!(does(&at, both.clone()).await, discarded[..1]);
    assert!(does(&at, both).await.is_empty());
    assert_eq!(ids(&at, &DeadLetterFilter::default()).await, discarded[..1]);
    assert!(at.claim(&orders).await.is_empty());
}

/// By each of what an entry says, and by two of them.
pub async fn changes_are_found_by_who_what_and_when(at: Arc<Harness>) {
    let entries = changed_by_two(&at).await;
    let (first, last) = (entries[0].id, entries[2].at);
    let of = |set: &dyn Fn(&mut AuditFilter)| {
        let mut filter = AuditFilter::default();
        set(&mut filter);
        filter
    };
    let (bob, discards) = ("bob".to_owned(), "discard_dead_letters".to_owned());
    let both = of(&|f| (f.who, f.action) = (Some(bob.clone()), Some(discards.clone())));
    let cases: [(AuditFilter, &[usize]); 7] = [
        (of(&|f| f.id = Some(first)), &[0]),
        (of(&|f| f.who = Some(bob.clone())), &[1, 2]),
        (of(&|f| f.action = Some(discards.clone())), &[0, 2]),
        (both, &[2]),
        (of(&|f| f.since = Some(last)), &[2]),
        (of(&|f| f.until = Some(last)), &[0, 1]),
        (of(&|f| f.operation = Some(1)), &[]),
    ];
    for (filter, expected) in cases {
        let found = at.admin.audit(&filter, Page::oldest(10)).await;
        let expected: Vec<_> = expected.iter().map(|n| entries[*n].clone()).collect();
        assert_eq!(found.expect("the audit is shown"), expected, "{filter:?}");
    }
    let behind = Page::latest(1).behind(Some(entries[2].id));
    let by_bob = of(&|f| f.who = Some(bob.clone()));
    let found = at.admin.audit(&by_bob, behind).await;
    assert_eq!(found.expect("the audit is shown"), entries[1..2]);
}

/// Two operators change a dead letter, four times, of which one changes nothing.
async fn changed_by_two(at: &Harness) -> Vec<AuditEntry> {
    let letters = vec![dies(at, &at.orders(), "no", None).await];
    for (who, action) in [
        ("ada", Action::DiscardDeadLetters(letters.clone())),
        ("bob", Action::RestoreDeadLetters(letters.clone())),
        ("ada", Action::RestoreDeadLetters(letters.clone())),
        ("bob", Action::DiscardDeadLetters(letters)),
    ] {
        let (who, why) = (who.to_owned(), String::new());
        let change = Change { who, why, action };
        at.admin.change(&change).await.expect("it is changed");
    }
    let all = AuditFilter::default();
    let entries = at.admin.audit(&all, Page::oldest(10)).await;
    let entries = entries.expect("the audit is shown");
    assert_eq!(entries.len(), 3, "what changed nothing left nothing");
    entries
}

/// Who, when, what, why, in the order of the changes.
pub async fn every_change_leaves_one_audit_entry_and_none_when_nothing_changed(at: Arc<Harness>) {
    let first = dies(&at, &at.orders(), "no", None).await;
    let second = dies(&at, &at.audit(), "no", None).await;
    let message = find(&at, &DeadLetterFilter::default()).await[1].envelope.id;
    let both = || vec![first, second];
    does(&at, Action::DiscardDeadLetters(both())).await;
    does(&at, Action::DiscardDeadLetters(both())).await;
    does(&at, Action::RedriveDeadLetters(both())).await;
    changes(&at, &[1, 2], RowVerb::Release).await;
    does(&at, Action::RestoreDeadLetters(vec![second])).await;

    let latest = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    let latest = latest.expect("the audit is shown");
    let actions: Vec<_> = latest.iter().map(|one| one.action.as_str()).collect();
    assert_eq!(actions, ["restore_dead_letters", "discard_dead_letters"]);
    let oldest = at
        .admin
        .audit(&AuditFilter::default(), Page::oldest(1))
        .await;
    let oldest = oldest.expect("the audit is shown").remove(0);
    assert_eq!(oldest, latest[1]);
    assert_eq!(
        (oldest.who.as_str(), oldest.why.as_str()),
        ("ada", "the gateway is back")
    );
    let about = at.admin.about().await.expect("it answers");
    assert!(oldest.at <= latest[0].at && latest[0].at <= about.now);
    let expected = serde_json::json!({
        "id": first,
        "message_id": message.to_string(),
        "message_type": "shop.order-placed",
        "endpoint": "orders",
    });
    assert_eq!(oldest.detail[0], expected);
    assert_eq!(oldest.detail.as_array().map(Vec::len), Some(2));
    let rest = Page::oldest(10).behind(Some(oldest.id));
    let rest = at
        .admin
        .audit(&AuditFilter::default(), rest)
        .await
        .expect("the audit is shown");
    assert_eq!(rest, latest[..1]);
}

/// Too many ids, and texts that no column takes.
pub async fn a_change_of_too_much_is_refused_and_changes_nothing(at: Arc<Harness>) {
    let id = dies(&at, &at.orders(), "no", None).await;
    let too_many: Vec<i64> = (0..=i64::from(PAGE_MAX)).map(|n| id + n).collect();
    let nul = |who: &str, why: &str| Change {
        who: who.to_owned(),
        why: why.to_owned(),
        action: Action::RedriveDeadLetters(vec![id]),
    };
    let long = "x".repeat(2000);
    for refused in [
        change(Action::RedriveDeadLetters(too_many)),
        nul("a\0da", ""),
        nul("ada", "\0"),
        nul("ada", &long),
    ] {
        let answer = at.admin.change(&refused).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
    assert_eq!(at.counts().await.dead_letters, 1);
    assert!(
        at.admin
            .audit(&AuditFilter::default(), Page::latest(1))
            .await
            .expect("it is shown")
            .is_empty()
    );
}

/// Both run over the same ids at the same time.
pub async fn two_operators_redrive_each_message_once(at: Arc<Harness>) {
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(dies(&at, &at.orders(), "no", None).await);
    }
    let one = change(Action::RedriveDeadLetters(all.clone()));
    let halves = all
        .chunks(7)
        .map(|some| change(Action::RedriveDeadLetters(some.to_vec())));
    let halves: Vec<_> = halves.collect();
    let other = async {
        let mut done = Vec::new();
        for half in &halves {
            done.extend(carried_out(&at, half).await);
        }
        done
    };
    let (mut done, others) = tokio::join!(carried_out(&at, &one), other);
    done.extend(others);
    done.sort_unstable();
    assert_eq!(done, all, "each was redriven by one of them");
    let claimed = at.claim(&at.orders()).await;
    let messages: HashSet<_> = claimed.iter().map(|row| row.envelope.id).collect();
    assert_eq!((claimed.len(), messages.len()), (40, 40));
}

/// Carries a change out, again where somebody else was faster.
async fn carried_out(at: &Harness, change: &Change) -> Vec<i64> {
    loop {
        match at.admin.change(change).await {
            Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
            done => return done.expect("a change is carried out"),
        }
    }
}
