//! What of a body each role sees, and who gets it as it is stored.

use std::time::Duration;

use sagabus_core::admin::{Action, Change, Page, RowFilter, StoreAdmin};
use sagabus_core::memory::MemoryStore;
use sagabus_core::{
    Command, Envelope, Host, Keyring, Kind, Message, Protection, Redaction, headers,
};
use sagabus_ops::{Guarded, Masks, Role, Sight};

#[derive(serde::Serialize, serde::Deserialize)]
struct Charge {
    order: u32,
    card: String,
}

impl Message for Charge {
    const TYPE: &'static str = "shop.charge";
    const KIND: Kind = Kind::Command;
}
impl Command for Charge {}

fn keys() -> Keyring {
    Keyring::new("k1", [3; 32]).unwrap()
}

fn charge() -> Charge {
    let card = "4111".to_owned();
    Charge { order: 7, card }
}

/// A store with a sealed row and a plain one, far from being due.
async fn two_rows() -> MemoryStore {
    let store = MemoryStore::new();
    for protection in [Protection::Plain, Protection::Required] {
        let host = Host::builder("shop").store(store.clone());
        let host = host
            .protects(keys(), protection)
            .redacts::<Charge>(Redaction::fields(["/card"]))
            .endpoint("till", |e| e.handle(async |_: Charge| {}));
        let host = host.build().unwrap().start().await.unwrap();
        let bus = host.bus();
        let later = bus.schedule(Duration::from_secs(3600), charge());
        later.await.unwrap();
        assert!(host.stop(Duration::from_secs(10)).await);
    }
    store
}

async fn seen(guarded: &Guarded<'_>, page: Page) -> [String; 2] {
    let rows = guarded.rows(&RowFilter::default(), page).await.unwrap();
    let bodies = rows.iter().map(|row| row.envelope.body.to_vec());
    let bodies = bodies.map(|body| String::from_utf8_lossy(&body).into_owned());
    bodies.collect::<Vec<_>>().try_into().unwrap()
}

#[tokio::test]
async fn each_role_sees_of_a_body_what_it_may() {
    let store = two_rows().await;
    let plain = r#"{"order":7,"card":"4111"}"#;
    let masked = r#"{"card":"***","order":7}"#;
    let page = Page::oldest(10);
    let sight = |keyring, masks| Sight { keyring, masks };
    for role in Role::ALL {
        let guarded = |sight| Guarded::new(&store, role).seeing(sight);
        let careful = guarded(sight(None, Masks::Kept));
        let with_keys = guarded(sight(Some(keys()), Masks::Kept));
        let revealed = guarded(sight(Some(keys()), Masks::Lifted));
        if role == Role::Reader {
            for guarded in [careful, with_keys, revealed] {
                assert_eq!(seen(&guarded, page).await, ["", ""]);
                assert_eq!(seen(&guarded, page.as_stored()).await, ["", ""]);
            }
            continue;
        }
        assert_eq!(seen(&careful, page).await, [masked, ""], "{role}");
        assert_eq!(seen(&with_keys, page).await, [masked, masked], "{role}");
        assert_eq!(seen(&revealed, page).await, [plain, plain], "{role}");
        let [first, second] = seen(&careful, page.as_stored()).await;
        let is_raw = role >= Role::Operator;
        assert_eq!(first == plain, is_raw, "{role}: {first}");
        assert_eq!(second.is_empty(), !is_raw, "{role}: {second}");
    }
}

#[tokio::test]
async fn what_a_tool_sends_is_sealed_where_it_has_keys() {
    let store = two_rows().await;
    let sight = Sight {
        keyring: Some(keys()),
        ..Sight::default()
    };
    let guarded = Guarded::new(&store, Role::Admin).seeing(sight);
    let envelope = Envelope::new(&charge()).unwrap();
    let id = envelope.id;
    let send = Change {
        who: "ada".to_owned(),
        why: String::new(),
        action: Action::SendMessage {
            endpoint: "till".to_owned(),
            envelope: Box::new(envelope),
        },
    };
    guarded.change(&send).await.unwrap();
    let rows = store.rows(&RowFilter::default(), Page::oldest(10)).await;
    let rows = rows.unwrap();
    let sent = rows.iter().find(|row| row.envelope.id == id).unwrap();
    assert_eq!(sent.envelope.headers.get(headers::SEALED), Some("k1"));
    assert!(keys().open(&sent.envelope).is_ok());
}
