//! What operators search rows and dead letters by, beside where they are.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    DeadLetterFilter, NewOperation, OperationState, PAGE_MAX, Page, RowFilter, RowState, RowVerb,
    Selected, StoredRow, TEXT_BYTES_MAX, Verb,
};
use sagabus_core::error::StoreError;
use sagabus_core::store::Birth;
use sagabus_core::unit_of_work::Reason;

use super::build::{api, attempts, message};
use super::harness::Harness;
use super::operations::{begin, new, step, wheel};
use super::operators::{changes, dies};
use crate::wait::grow_older;

async fn rows(at: &Harness, filter: &RowFilter) -> Vec<StoredRow> {
    let found = at.admin.rows(filter, Page::oldest(100)).await;
    found.expect("rows are shown")
}

/// Lists what a filter lets through; as many are counted.
async fn ids(at: &Harness, filter: &RowFilter) -> Vec<i64> {
    let found = rows(at, filter).await;
    let counted = at.admin.count_rows(filter).await;
    let counted = counted.expect("they are counted").count;
    assert_eq!(counted, found.len() as u64, "{filter:?}");
    found.iter().map(|row| row.id).collect()
}

fn with_error(text: &str) -> RowFilter {
    RowFilter {
        error: Some(text.to_owned()),
        ..RowFilter::default()
    }
}

/// Leaves four rows: one that never failed, one that failed twice, one that was parked for its error,
/// one that was parked without. Returns their ids.
async fn failed(at: &Harness) -> [i64; 4] {
    let orders = at.orders();
    let plain = || message(&orders);
    let twice = attempts(&[
        "gateway is away",
        "no Disk left:\n 100% of \"/var_1\" \0 used",
    ]);
    let away = attempts(&["gateway is AWAY"]);
    let parked = |reason| plain().born(Birth::Parked(reason));
    for message in [
        plain(),
        plain().failed_before(twice),
        parked(Reason::Unroutable).failed_before(away),
        parked(Reason::NoOwner),
    ] {
        at.write(api().sends(message)).await;
    }
    let all = ids(at, &RowFilter::default()).await;
    all.try_into().expect("there are four")
}

/// In whatever case; what has a meaning in patterns, in JSON or in SQL is text as any other.
pub async fn rows_are_found_by_what_went_wrong_with_them(at: Arc<Harness>) {
    let [_, twice, away, nobodys] = failed(&at).await;
    for (text, found) in [
        ("gateway", &[away][..]),
        ("GateWay is away", &[away]),
        ("no disk", &[twice]),
        ("LEFT:\n 100% of \"/VAR_1\"", &[twice]),
        ("used", &[twice]),
        ("no_OWNER", &[nobodys]),
        ("unrout", &[away]),
        ("no", &[twice, nobodys]),
        ("", &[twice, away, nobodys]),
        ("first", &[]),
        ("%ateway", &[]),
        ("gatewa_", &[]),
        ("\\n", &[]),
        ("var\\_1", &[]),
        ("' or 1 = 1 --", &[]),
        ("\u{e4}", &[]),
    ] {
        assert_eq!(ids(&at, &with_error(text)).await, found, "{text:?}");
    }
    let together = RowFilter {
        state: Some(RowState::Moving),
        destination: Some("@orders".to_owned()),
        ..with_error("no")
    };
    assert_eq!(ids(&at, &together).await, [twice]);
}

/// An operation's selection is what the list showed.
pub async fn rows_are_changed_by_what_went_wrong_with_them(at: Arc<Harness>) {
    let [first, twice, away, nobodys] = failed(&at).await;
    let filter = RowFilter {
        state: Some(RowState::Moving),
        is_changeable: true,
        ..with_error("disk")
    };
    let selected = Selected::Rows(Box::new(filter));
    let begun = begin(&at, Verb::Rows(RowVerb::Park), selected).await;
    assert_eq!(begun.total, 1);
    assert_eq!(begun.selection["error"], "disk");
    let wheel = wheel(&at, begun.id).await;
    let done = step(&at, wheel, PAGE_MAX).await.expect("it runs");
    assert_eq!((done.changed, done.state), (1, OperationState::Done));
    let moving = RowFilter {
        state: Some(RowState::Moving),
        ..RowFilter::default()
    };
    assert_eq!(ids(&at, &moving).await, [first]);
    // It is tried as if it were new.
    assert_eq!(changes(&at, &[away], RowVerb::Release).await, [away]);
    assert_eq!(ids(&at, &with_error("gateway")).await, [0; 0]);
    assert_eq!(ids(&at, &with_error("operator")).await, [twice]);
    assert_eq!(ids(&at, &with_error("owner")).await, [nobodys]);
}

/// Whatever else a filter says holds, too.
pub async fn rows_are_found_by_their_ids(at: Arc<Harness>) {
    let [first, twice, away, nobodys] = failed(&at).await;
    let named = |ids: &[i64]| RowFilter {
        ids: Some(ids.to_vec()),
        ..RowFilter::default()
    };
    let unknown = nobodys + 7;
    assert_eq!(ids(&at, &named(&[away])).await, [away]);
    let some = named(&[unknown, nobodys, first, first]);
    assert_eq!(ids(&at, &some).await, [first, nobodys]);
    assert_eq!(ids(&at, &named(&[])).await, [0; 0], "none are named");
    let all = [first, twice, away, nobodys];
    for (state, found) in [
        (RowState::Parked, &[away, nobodys][..]),
        (RowState::Moving, &[first, twice]),
        (RowState::Timer, &[]),
    ] {
        let filter = RowFilter {
            state: Some(state),
            ..named(&all)
        };
        assert_eq!(ids(&at, &filter).await, found, "{state:?}");
    }
    let latest = at.admin.rows(&named(&all), Page::latest(1)).await;
    assert_eq!(latest.expect("it is shown")[0].id, nobodys);
}

/// Of a row that was written at a moment, `since` has it and `until` has not.
pub async fn rows_are_found_by_their_key_and_their_age(at: Arc<Harness>) {
    let orders = at.orders();
    for key in ["a", "b"] {
        at.write(api().sends(message(&orders).keyed(key))).await;
        grow_older(Duration::from_millis(5)).await;
    }
    at.write(api().sends(message(&orders))).await;
    let all = rows(&at, &RowFilter::default()).await;
    let second = &all[1];
    let ids = async |filter: RowFilter| -> Vec<i64> {
        let found = rows(&at, &filter).await;
        found.iter().map(|row| row.id).collect()
    };
    let key = |key: &str| RowFilter {
        key: Some(key.to_owned()),
        ..RowFilter::default()
    };
    assert_eq!(ids(key("b")).await, [second.id]);
    assert_eq!(ids(key("c")).await, [0; 0]);
    let (since, until) = (Some(second.created_at), Some(second.created_at));
    let later = RowFilter {
        since,
        ..RowFilter::default()
    };
    assert_eq!(ids(later).await, [second.id, all[2].id]);
    let earlier = RowFilter {
        until,
        ..RowFilter::default()
    };
    assert_eq!(ids(earlier).await, [all[0].id]);
}

/// What is searched for is bounded, so that an answer is; every question says so, and nothing is begun.
pub async fn what_no_row_has_is_not_searched_for(at: Arc<Harness>) {
    dies(&at, &at.orders(), "no", None).await;
    failed(&at).await;
    let long = "x".repeat(TEXT_BYTES_MAX);
    assert_eq!(ids(&at, &with_error(&long)).await, [0; 0]);
    let many = i64::from(PAGE_MAX);
    let named = |count: i64| RowFilter {
        ids: Some((0..count).collect()),
        ..RowFilter::default()
    };
    assert!(!ids(&at, &named(many)).await.is_empty());

    let is_refused = |answer: Option<StoreError>| matches!(answer, Some(StoreError::Refused(_)));
    let page = Page::oldest(1);
    let texts = ["a\0b".to_owned(), long + "x"];
    for filter in texts
        .iter()
        .map(|text| with_error(text))
        .chain([named(many + 1)])
    {
        assert!(
            is_refused(at.admin.rows(&filter, page).await.err()),
            "{filter:?}"
        );
        assert!(
            is_refused(at.admin.count_rows(&filter).await.err()),
            "{filter:?}"
        );
        let selected = Selected::Rows(Box::new(filter.clone()));
        let new: NewOperation = new(Verb::Rows(RowVerb::Discard), selected);
        let begun = at.admin.begin_operation(&new).await;
        assert!(is_refused(begun.err()), "{filter:?}");
    }
    for text in texts {
        let filter = DeadLetterFilter {
            text: Some(text),
            ..DeadLetterFilter::any()
        };
        let listed = at.admin.find_dead_letters(&filter, page).await;
        assert!(is_refused(listed.err()), "{filter:?}");
        let counted = at.admin.count_dead_letters(&filter).await;
        assert!(is_refused(counted.err()), "{filter:?}");
        let grouped = at.admin.dead_letter_groups(&filter, 1).await;
        assert!(is_refused(grouped.err()), "{filter:?}");
        let selected = Selected::DeadLetters(Box::new(filter.clone()));
        let begun = at
            .admin
            .begin_operation(&new(Verb::Discard, selected))
            .await;
        assert!(is_refused(begun.err()), "{filter:?}");
    }
}
