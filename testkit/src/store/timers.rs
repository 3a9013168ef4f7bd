//! Timers: rows that belong to an instance, one per name.

use std::sync::Arc;

use sagabus_core::admin::{Action, Page, RowFilter, RowState, StoredRow};
use sagabus_core::envelope::{Due, Timer};
use sagabus_core::id::InstanceId;
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Outcome, Settle};

use super::Message;
use super::build::{api, change, message, row};
use super::harness::{HOUR, Harness, instance};
use super::operators::does;

/// A timer of an instance that is due at once.
fn timer(at: &Harness, owner: &InstanceId, name: &str, generation: u64) -> Message {
    message(&at.orders()).timer(owner, name, generation)
}

/// A fired timer says whose it is, which one, and of which generation.
pub async fn a_timer_carries_its_owner_name_and_generation(at: Arc<Harness>) {
    let order = instance("7");
    at.write(
        api()
            .moves(&order, 0)
            .sends(timer(&at, &order, "deadline", 3)),
    )
    .await;
    let expected = Timer {
        owner: order,
        name: "deadline".to_owned(),
        generation: 3,
    };
    assert_eq!(at.claim_one(&at.orders()).await.timer, Some(expected));
}

/// One row per name, the latest.
pub async fn a_timer_armed_again_replaces_its_row(at: Arc<Harness>) {
    let order = instance("1");
    at.write(
        api()
            .moves(&order, 0)
            .sends(timer(&at, &order, "deadline", 1).due(Due::After(HOUR))),
    )
    .await;
    at.write(
        api()
            .moves(&order, 1)
            .disarms(&["deadline"])
            .sends(timer(&at, &order, "deadline", 2)),
    )
    .await;
    assert_eq!(at.counts().await.outbox, 1);
    let fired = at.claim_one(&at.orders()).await;
    assert_eq!(fired.timer.map(|timer| timer.generation), Some(2));
}

/// Only the named ones; one that is gone already is no matter.
pub async fn a_disarmed_timer_is_gone(at: Arc<Harness>) {
    let order = instance("1");
    at.write(
        api()
            .moves(&order, 0)
            .sends(timer(&at, &order, "deadline", 1))
            .sends(timer(&at, &order, "reminder", 1)),
    )
    .await;
    at.write(api().moves(&order, 1).disarms(&["deadline", "never armed"]))
        .await;
    let left = at.claim_one(&at.orders()).await;
    let name = left.timer.map(|timer| timer.name);
    assert_eq!(name.as_deref(), Some("reminder"));
}

/// Also while a host holds it: its answer then finds no row.
pub async fn a_claimed_timer_can_be_disarmed(at: Arc<Harness>) {
    let order = instance("1");
    at.write(
        api()
            .moves(&order, 0)
            .sends(timer(&at, &order, "deadline", 1)),
    )
    .await;
    let fired = at.claim_one(&at.orders()).await;
    at.write(api().moves(&order, 1).disarms(&["deadline"]))
        .await;
    let late = row(fired.row).moves(&order, 2);
    assert_eq!(at.outcome(late).await, Outcome::Duplicate);
    assert_eq!(at.counts().await.outbox, 0);
}

/// A heart beat: the row that is answered makes room for the next of its name.
pub async fn a_timer_may_rearm_itself_in_the_unit_that_it_fires(at: Arc<Harness>) {
    let order = instance("1");
    at.write(api().moves(&order, 0).sends(timer(&at, &order, "beat", 1)))
        .await;
    for step in 1..4_u64 {
        let fired = at.claim_one(&at.orders()).await;
        assert_eq!(fired.timer.map(|timer| timer.generation), Some(step));
        let version = i64::try_from(step).expect("few");
        let again = row(fired.row)
            .moves(&order, version)
            .disarms(&["beat"])
            .sends(timer(&at, &order, "beat", step + 1));
        at.write(again).await;
        assert_eq!(at.counts().await.outbox, 1);
    }
}

/// The name is unique within its instance only.
pub async fn timers_of_two_instances_share_no_name(at: Arc<Harness>) {
    let order = instance("1");
    let parcel = InstanceId {
        kind: "parcel".into(),
        ..order.clone()
    };
    let other = instance("2");
    for id in [&order, &parcel, &other] {
        at.write(api().moves(id, 0).sends(timer(&at, id, "deadline", 1)))
            .await;
    }
    at.write(api().moves(&order, 1).disarms(&["deadline"]))
        .await;
    let rows = at.claim(&at.orders()).await;
    let mut owners: Vec<_> = rows
        .into_iter()
        .filter_map(|one| one.timer.map(|timer| timer.owner))
        .collect();
    owners.sort();
    assert_eq!(owners, [other, parcel]);
}

/// What lost has disarmed nothing.
pub async fn a_conflict_leaves_timers_armed(at: Arc<Harness>) {
    let order = instance("1");
    at.write(
        api()
            .moves(&order, 0)
            .sends(timer(&at, &order, "deadline", 1)),
    )
    .await;
    let loser = api()
        .moves(&order, 5)
        .disarms(&["deadline"])
        .sends(timer(&at, &order, "deadline", 2));
    assert_eq!(at.outcome(loser).await, Outcome::Conflict);
    let fired = at.claim_one(&at.orders()).await;
    assert_eq!(fired.timer.map(|timer| timer.generation), Some(1));
}

/// An instance that ends takes its timers along, in one unit with others that arm theirs.
pub async fn units_of_one_group_disarm_and_arm_apart(at: Arc<Harness>) {
    let ids: Vec<_> = (0..12).map(|n| instance(&n.to_string())).collect();
    let armed = ids
        .iter()
        .map(|id| api().moves(id, 0).sends(timer(&at, id, "deadline", 1)));
    at.commit(armed).await;
    let ends = |id: &InstanceId| InstanceChange {
        status: InstanceStatus::Completed,
        disarmed: vec!["deadline".to_owned()],
        ..change(id, 1)
    };
    let moved = ids.iter().enumerate().map(|(n, id)| match n % 3 {
        0 => api().changes(ends(id)),
        1 => api()
            .moves(id, 1)
            .disarms(&["deadline"])
            .sends(timer(&at, id, "deadline", 2)),
        _ => api().moves(id, 1),
    });
    at.commit(moved).await;
    let rows = at.claim(&at.orders()).await;
    let generations = |wanted| {
        let of = |one: &&sagabus_core::store::ClaimedRow| {
            one.timer.as_ref().map(|timer| timer.generation) == Some(wanted)
        };
        rows.iter().filter(of).count()
    };
    assert_eq!((rows.len(), generations(1), generations(2)), (8, 4, 4));
    at.settle(rows.iter().map(|one| Settle::Delete(one.row)))
        .await;
}

/// Only what is not due yet, and the instance knows of it.
pub async fn operators_move_fire_and_cancel_timers(at: Arc<Harness>) {
    let order = instance("1");
    let armed = |name: &str| timer(&at, &order, name, 1).due(Due::After(HOUR));
    at.write(
        api()
            .moves(&order, 0)
            .sends(armed("deadline"))
            .sends(armed("reminder"))
            .sends(armed("patience")),
    )
    .await;
    at.write(api().sends(message(&at.orders()))).await;
    let timers = RowFilter {
        state: Some(RowState::Timer),
        ..RowFilter::default()
    };
    let listed = at.admin.rows(&timers, Page::oldest(10)).await;
    let listed = listed.expect("rows are shown");
    let name = |row: &StoredRow| row.timer.as_ref().map(|timer| timer.name.clone());
    let names: Vec<_> = listed.iter().filter_map(name).collect();
    assert_eq!(names, ["deadline", "reminder", "patience"]);
    let ids: Vec<_> = listed.iter().map(|one| one.id).collect();

    let due = listed[0].available_at.plus(HOUR);
    let moved = Action::MoveTimers {
        ids: vec![ids[0]],
        due: Some(due),
    };
    assert_eq!(does(&at, moved).await, [ids[0]]);
    let all = at.admin.rows(&timers, Page::oldest(10)).await;
    let all = all.expect("rows are shown");
    assert_eq!((all[0].available_at, all[0].due_at), (due, Some(due)));

    let before = at.instance(&order).await.expect("it is there").version;
    let cancel = || Action::CancelTimers(vec![ids[0], ids[1], 4711]);
    assert_eq!(does(&at, cancel()).await, ids[..2]);
    assert!(does(&at, cancel()).await.is_empty());
    let after = at.instance(&order).await.expect("it is there");
    assert_eq!(after.version, before + 1);
    for name in ["deadline", "reminder"] {
        assert!(!after.timers.contains_key(name), "{name} is not waited for");
    }

    let fire = || Action::MoveTimers {
        ids: vec![ids[2]],
        due: None,
    };
    assert_eq!(does(&at, fire()).await, [ids[2]]);
    assert!(
        does(&at, fire()).await.is_empty(),
        "it is due: hosts have it"
    );
    let rows = at.claim(&at.orders()).await;
    let fired = rows.into_iter().find_map(|row| row.timer);
    assert_eq!(fired.map(|timer| timer.name).as_deref(), Some("patience"));
}

/// Those of others of its kind, or with its key, are not meant.
pub async fn timers_are_found_by_the_instance_that_armed_them(at: Arc<Harness>) {
    for key in ["1", "2"] {
        let order = instance(key);
        let armed = |name: &str| timer(&at, &order, name, 1).due(Due::After(HOUR));
        let unit = api().moves(&order, 0);
        at.write(unit.sends(armed("deadline")).sends(armed("reminder")))
            .await;
    }
    at.write(api().sends(message(&at.orders()).keyed("1")))
        .await;
    let of = |owner: InstanceId| RowFilter {
        owner: Some(owner),
        ..RowFilter::default()
    };
    for page in [Page::oldest(10), Page::latest(10)] {
        let found = at.admin.rows(&of(instance("1")), page).await;
        let found = found.expect("rows are shown");
        let owners = found.iter().filter_map(|row| row.timer.as_ref());
        let owners: Vec<_> = owners.map(|timer| timer.owner.clone()).collect();
        assert_eq!(owners, [instance("1"), instance("1")]);
    }
    let first = at.admin.rows(&of(instance("1")), Page::oldest(1)).await;
    let first = first.expect("rows are shown").remove(0);
    let behind = Page::oldest(10).behind(Some(first.id));
    let second = at.admin.rows(&of(instance("1")), behind).await;
    let second = second.expect("rows are shown");
    let names = [&first, &second[0]].map(|row| row.timer.as_ref().map(|timer| &*timer.name));
    assert_eq!(
        (names, second.len()),
        ([Some("deadline"), Some("reminder")], 1)
    );
    let other = InstanceId {
        kind: "another".into(),
        ..instance("1")
    };
    for nobody in [other, instance("3")] {
        let found = at.admin.rows(&of(nobody), Page::oldest(10)).await;
        assert_eq!(found.expect("rows are shown"), []);
    }
}
