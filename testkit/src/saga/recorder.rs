//! Takes every message of some types, and keeps it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, ready};
use sagabus_core::envelope::Envelope;
use sagabus_core::error::CodecError;
use sagabus_core::handler::{Decoded, Need, Subscriber};
use sagabus_core::store::Subscription;
use sagabus_core::{Ctx, Kind, Message, Result};
use serde_json::Value;

/// What was sent, in the order in which it arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded(Arc<Mutex<Vec<Envelope>>>);

impl Recorded {
    fn add(&self, envelope: Envelope) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What a host that died had in hand comes again: it was sent once.
        if all.iter().all(|known| known.id != envelope.id) {
            all.push(envelope);
        }
    }

    /// Returns every message of a type.
    pub(super) fn of<M: Message>(&self) -> Vec<M> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = all.iter().filter(|one| one.message_type == M::TYPE);
        let decode = |one: &Envelope| M::decode(&one.body);
        let decoded: std::result::Result<_, _> = wanted.map(decode).collect();
        decoded.expect("what was sent as this type can be read as it")
    }

    /// Returns the types of all messages.
    pub(super) fn types(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|one| one.message_type.to_string()).collect()
    }
}

/// Takes one type.
pub(super) struct Recorder {
    pub(super) subscription: Subscription,
    pub(super) recorded: Recorded,
}

impl Subscriber for Recorder {
    fn subscription(&self) -> Subscription {
        self.subscription.clone()
    }

    fn name(&self) -> &str {
        "the test"
    }

    fn version(&self) -> u32 {
        u32::MAX
    }

    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }

    fn decode(&self, _: &Envelope) -> std::result::Result<Decoded, CodecError> {
        Ok(Decoded {
            message: Box::new(()),
            instance: None,
            label: None,
        })
    }

    fn handle<'a>(&'a self, _: Box<dyn Any + Send + Sync>, cx: &'a Ctx) -> BoxFuture<'a, Result> {
        self.recorded.add(cx.envelope().clone());
        Box::pin(ready(Ok(())))
    }
}

/// Lists what a machine sends and does not take itself.
pub(super) fn what_it_sends(description: &Value) -> Vec<Subscription> {
    let list = |name: &str| description[name].as_array().cloned().unwrap_or_default();
    let takes: Vec<Value> = list("transitions")
        .iter()
        .map(|one| one["on"].clone())
        .collect();
    let sends = list("sends")
        .into_iter()
        .filter(|one| !takes.contains(&one["type"]));
    let subscription = |one: Value| Subscription {
        message_type: one["type"].as_str().unwrap_or_default().to_owned().into(),
        kind: match one["kind"].as_str() {
            Some("command") => Kind::Command,
            Some("event") => Kind::Event,
            _ => Kind::Reply,
        },
    };
    sends.map(subscription).collect()
}
