//! Any text may be searched for: what has it is found, and nothing else.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sagabus_core::admin::{DeadLetterFilter, Page, StoreAdmin};

use crate::scene::Scene;

#[test]
fn any_text_that_is_searched_for_finds_what_has_it_and_nothing_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_scene, store) = runtime.block_on(Scene::with_failures(3));
    let find = |filter: &DeadLetterFilter| {
        let found = store.find_dead_letters(filter, Page::oldest(10));
        runtime.block_on(found).unwrap()
    };
    let all = find(&DeadLetterFilter::default());
    assert_eq!(all.len(), 3);
    let whole = all[0].fingerprint.clone();
    let end = whole.len();
    let part = (0..end, 0..end).prop_map(move |(from, to)| {
        let (from, to) = (from.min(to), from.max(to));
        whole.get(from..to).unwrap_or_default().to_ascii_uppercase()
    });
    let text = prop_oneof![part, any::<String>(), "['\"%_\\\\;-]{0,6}"];
    let check = |text: String| {
        let has_it = |one: &&sagabus_core::admin::StoredDeadLetter| {
            let fingerprint = one.fingerprint.to_ascii_lowercase();
            fingerprint.contains(&text.to_ascii_lowercase())
        };
        let filter = DeadLetterFilter {
            text: Some(text.clone()),
            ..DeadLetterFilter::default()
        };
        prop_assert_eq!(find(&filter).len(), all.iter().filter(has_it).count());
        let exact = DeadLetterFilter {
            key: Some(text.clone()),
            endpoint: Some(text.clone()),
            fingerprint: Some(text.clone()),
            ..DeadLetterFilter::default()
        };
        prop_assert_eq!(find(&exact).len(), 0);
        Ok(())
    };
    TestRunner::default().run(&text, check).unwrap();
}
