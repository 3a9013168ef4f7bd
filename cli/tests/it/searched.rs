//! Any text may be searched for: what has it is found, and nothing else.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sagabus_core::StoreError;
use sagabus_core::admin::{DeadLetterFilter, Page, RowFilter, StoreAdmin};
use tokio::runtime::Runtime;

use crate::rehearsing::on_file;
use crate::scene::Scene;

/// Searches for parts of some text, for any text, and for what means something to databases.
fn finds_what_has_it(
    whole: String,
    find: impl Fn(String) -> Result<usize, StoreError>,
    all: usize,
) {
    let end = whole.len();
    let told = whole.clone();
    let part = (0..end, 0..end).prop_map(move |(from, to)| {
        let (from, to) = (from.min(to), from.max(to));
        told.get(from..to).unwrap_or_default().to_ascii_uppercase()
    });
    let text = prop_oneof![part, any::<String>(), "['\"%_\\\\;-]{0,6}"];
    let check = |text: String| {
        let has_it = whole
            .to_ascii_lowercase()
            .contains(&text.to_ascii_lowercase());
        let found = find(text.clone());
        match text.contains('\0') {
            true => prop_assert!(matches!(found, Err(StoreError::Refused(_))), "{found:?}"),
            false => prop_assert_eq!(found.unwrap(), if has_it { all } else { 0 }),
        }
        Ok(())
    };
    TestRunner::default().run(&text, check).unwrap();
}

#[test]
fn any_text_that_is_searched_for_finds_what_has_it_and_nothing_else() {
    let runtime = Runtime::new().unwrap();
    let (_scene, store) = runtime.block_on(Scene::with_failures(3));
    let find = |filter: &DeadLetterFilter| {
        runtime.block_on(store.find_dead_letters(filter, Page::oldest(10)))
    };
    let all = find(&DeadLetterFilter::default()).unwrap();
    assert_eq!(all.len(), 3);
    let whole = all[0].fingerprint.clone();
    assert!(all.iter().all(|one| one.fingerprint == whole));
    let find_text = |text: String| {
        let exact = DeadLetterFilter {
            key: Some(text.replace('\0', "")),
            endpoint: Some(text.replace('\0', "")),
            fingerprint: Some(text.replace('\0', "")),
            ..DeadLetterFilter::default()
        };
        assert_eq!(find(&exact)?.len(), 0);
        let filter = DeadLetterFilter {
            text: Some(text),
            ..DeadLetterFilter::default()
        };
        find(&filter).map(|found| found.len())
    };
    finds_what_has_it(whole, find_text, 3);
}

#[test]
fn any_error_that_is_searched_for_finds_the_rows_that_have_it_and_no_others() {
    let runtime = Runtime::new().unwrap();
    let (scene, store) = runtime.block_on(Scene::with_failures(0));
    let error = r#"cannot read \"C:\orders\": 100% of it_is gone; Größe {"\u00e4": 'ß'} --"#;
    let attempts = serde_json::json!([
        { "at": 0, "host": "first", "error": "what came before" },
        { "at": 1, "host": "first", "error": error },
    ]);
    let attempts = attempts.to_string().replace('\'', "''");
    let sql = format!("update sagabus_outbox set attempts = cast('{attempts}' as blob)");
    runtime.block_on(on_file(&scene, &sql));
    let find = |text: String| {
        let filter = RowFilter {
            error: Some(text),
            reason: Some("no_owner".to_owned()),
            ..RowFilter::default()
        };
        let found = runtime.block_on(store.rows(&filter, Page::oldest(10)));
        found.map(|found| found.len())
    };
    finds_what_has_it(error.to_owned(), find, 1);
}
