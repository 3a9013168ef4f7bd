//! Bodies that are sealed, and bodies that are masked.

use sagabus_core::admin::{Page, RowFilter, StoreAdmin};
use sagabus_core::{HostBuilder, Keyring, Protection, Redaction, headers};
use sagabus_outbox::SqliteStore;
use sagabus_testkit::wait::eventually;

use crate::scene::{Charge, Ran, Scene, host_with};

/// What only a key, and a word, bring to light.
const NOTE: &str = "canary-note-4711";

fn secret() -> String {
    "0b".repeat(32)
}

fn keys() -> Keyring {
    Keyring::new("k1", [0x0b; 32]).unwrap()
}

fn masked(builder: HostBuilder) -> HostBuilder {
    builder.redacts::<Charge>(Redaction::fields(["/note"]))
}

fn sealed(builder: HostBuilder) -> HostBuilder {
    masked(builder.protects(keys(), Protection::Required))
}

/// Leaves dead letters behind.
async fn with_dead(dead: u32, declare: fn(HostBuilder) -> HostBuilder) -> (Scene, SqliteStore) {
    let (scene, store) = Scene::new().await;
    let host = host_with(store.clone(), declare).await;
    for order in 0..dead {
        let note = NOTE.to_owned();
        host.bus().send(Charge { order, note }).await.unwrap();
    }
    dies(&store, dead).await;
    assert!(host.stop(std::time::Duration::from_secs(10)).await);
    (scene, store)
}

async fn dies(store: &SqliteStore, dead: u32) {
    let all = || async {
        let counts = store.counts().await.unwrap();
        (counts.dead_letters == u64::from(dead)).then_some(())
    };
    eventually("dead letters", all).await;
}

fn written(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.file().with_file_name(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn well(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_body_is_shown_to_who_has_its_key() {
    let (scene, _store) = with_dead(1, sealed).await;
    let ring = written(&scene, "keys", &format!("k1 {}", secret()));
    let show = ["dead-letters", "show", "1"];
    let shut = well(scene.run(&show));
    assert!(shut.contains("sealed with key `k1`"), "{shut}");
    assert!(!shut.contains("order\""), "{shut}");
    let shut = scene.json(&show);
    assert_eq!(shut["headers"]["sagabus-sealed"], "k1");
    assert_eq!(shut["body"].get("text"), None);
    assert_eq!(shut["body"].get("hex"), None);

    let with_keys = [&show[..], &["--keyring", &ring]].concat();
    let open = well(scene.run(&with_keys));
    assert!(
        open.contains("\"order\": 0") && open.contains("***"),
        "{open}"
    );
    assert!(!open.contains(NOTE), "{open}");
    let revealed = well(scene.run(&[&with_keys[..], &["--reveal"]].concat()));
    assert!(revealed.contains(NOTE), "{revealed}");
    let more = ["--reveal", "--role", "reader"];
    let nothing = well(scene.run(&[&with_keys[..], &more].concat()));
    assert!(
        !nothing.contains(NOTE) && !nothing.contains("\"order\""),
        "{nothing}"
    );

    let other = written(&scene, "other", &format!("k2 {}", secret()));
    let shut = well(scene.run(&[&show[..], &["--keyring", &other]].concat()));
    assert!(shut.contains("sealed with key `k1`"), "{shut}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_body_is_edited_by_who_has_its_key_and_sealed_again() {
    let (scene, store) = with_dead(2, sealed).await;
    let body = written(&scene, "body.json", r#"{"order":99,"note":"mended"}"#);
    let ring = format!("k2 {}\nk1 {}", "0c".repeat(32), secret());
    let ring = written(&scene, "keys", &ring);
    let edit = |id: &str, identity: &str, more: &[&str]| {
        let words = [
            "dead-letters",
            "edit",
            id,
            "--body",
            &body,
            "--identity",
            identity,
        ];
        scene.run(&[&words[..], &["--yes"], more].concat())
    };
    let refused = edit("1", "keep", &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("`k1`") && refused.err.contains("[SB0501]"));
    for (id, identity) in [("1", "keep"), ("2", "new")] {
        let done = well(edit(id, identity, &["--keyring", &ring]));
        assert!(!done.contains(NOTE), "{done}");
    }
    let rows = store.rows(&RowFilter::default(), Page::oldest(10)).await;
    for row in rows.unwrap() {
        assert_eq!(row.envelope.headers.get(headers::SEALED), Some("k1"));
        let opened = keys().open(&row.envelope).unwrap();
        assert_eq!(&opened.body[..], br#"{"order":99,"note":"mended"}"#);
    }
    // They are opened and handled, which fails as ever.
    let host = host_with(store.clone(), sealed).await;
    dies(&store, 2).await;
    let again = store.dead_letters(2).await.unwrap();
    assert!(
        again.iter().all(|one| one.reason == "terminal"),
        "{again:?}"
    );
    assert!(host.stop(std::time::Duration::from_secs(10)).await);
    let audit = well(scene.run(&["audit", "--json", "--reveal"]));
    assert!(
        !audit.contains(NOTE) && !audit.contains("mended"),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_is_shown_by_a_word_alone() {
    let (scene, _store) = with_dead(2, masked).await;
    let edited = format!(r#"{{"order":9,"note":"{NOTE}"}}"#);
    let body = written(&scene, "body.json", &edited);
    let edit = [
        "dead-letters",
        "edit",
        "1",
        "--body",
        &body,
        "--identity",
        "keep",
        "--yes",
    ];
    let edited = well(scene.run(&edit));
    let all: [&[&str]; 6] = [
        &["dead-letters", "show", "2"],
        &["dead-letters", "show", "2", "--json"],
        &["dead-letters", "list", "--json"],
        &["outbox", "show", "3"],
        &["outbox", "list", "--json"],
        &["audit", "--json"],
    ];
    for arguments in all {
        let ran = scene.run(arguments);
        assert!(!ran.out.contains(NOTE), "{arguments:?}: {}", ran.out);
    }
    assert!(edited.contains("***") && !edited.contains(NOTE), "{edited}");
    for arguments in [all[0], all[1], all[5]] {
        let shown = well(scene.run(&[arguments, &["--reveal"]].concat()));
        assert!(shown.contains(NOTE), "{arguments:?}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_uses_the_body_as_it_is_stored() {
    let (scene, store) = with_dead(1, sealed).await;
    let host = host_with(store.clone(), sealed).await;
    let told = scene.run(&["dead-letters", "rehearse", "1", "--yes"]);
    // It was opened: else it would be refused as one that cannot be read.
    assert!(told.out.contains("rehearses"), "{told:?}");
    assert!(!told.out.contains("cannot_open"), "{told:?}");
    assert!(host.stop(std::time::Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_that_cannot_be_used_is_told_without_its_keys() {
    let (scene, _store) = Scene::new().await;
    let cases = [
        ("", "no key"),
        ("k1 0b0b0b0b", "line 1"),
        ("k1\u{1}x 0b0b", "line 1"),
    ];
    for (text, expected) in cases {
        let ring = written(&scene, "keys", text);
        let refused = scene.run(&["dead-letters", "show", "1", "--keyring", &ring]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains(expected), "{refused:?}");
        assert!(!refused.err.contains("0b0b"), "{refused:?}");
    }
    let refused = scene.run(&["audit", "--keyring", "/nowhere/keys"]);
    assert!(refused.err.contains("/nowhere/keys"), "{refused:?}");
}
