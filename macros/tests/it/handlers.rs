use sagabus::memory::MemoryStore;
use sagabus::{
    Command, Ctx, Event, HandlerError, Host, IdempotencyKey, IntoOutgoing, Message, MessageId,
    Result, State, debug_handler,
};
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("payments.charge")]
struct Charge {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("payments.charged")]
struct Charged {
    receipt: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message("payments.answer")]
struct Answer;

struct Gateway {
    name: String,
}

#[debug_handler]
async fn charge(
    Charge { cents }: Charge,
    key: IdempotencyKey,
    State(gateway): State<Gateway>,
) -> Result<(Charged, Option<Answer>)> {
    if cents < 0 {
        return Err(HandlerError::from("negative"));
    }
    let receipt = format!("{}/{key}", gateway.name);
    Ok((Charged { receipt }, Some(Answer)))
}

#[debug_handler(crate = ::sagabus)]
async fn note(_: Charged, _cx: Ctx, mut _id: MessageId) {}

#[debug_handler]
async fn thank(_: Answer) -> impl IntoOutgoing {}

#[test]
fn checked_handlers_are_handlers() {
    let host = Host::builder("shop")
        .store(MemoryStore::new())
        .state(Gateway {
            name: "bank".to_owned(),
        })
        .endpoint("payments", |endpoint| endpoint.handle(charge))
        .endpoint("notes", |endpoint| endpoint.handle(note).handle(thank))
        .build()
        .unwrap();
    let described = host.describe().to_string();
    assert!(described.contains("payments.charged"), "{described}");
}
