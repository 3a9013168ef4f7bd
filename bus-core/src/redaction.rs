//! What is masked of a message where people look at it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::envelope::Envelope;
use crate::fault_event::told_of;

/// What stands in the place of what is masked.
pub const MASK: &str = "***";

/// What of a message type's bodies is masked wherever the bus shows them to people: command line,
/// rehearsals, audit.
///
/// Handlers get what was sent, and tables and brokers hold it: what those must not hold is to be
/// [sealed](crate::Protection).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// Pointers to fields (RFC 6901; `*` is every element); `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fields: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) dead_letters: DeadBodies,
}

/// Says whether the bodies of dead letters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeadBodies {
    #[default]
    Kept,
    /// Only where they are sealed.
    Dropped,
}

impl Redaction {
    /// Masks whole bodies.
    pub const fn body() -> Self {
        Self {
            fields: None,
            dead_letters: DeadBodies::Kept,
        }
    }

    /// Masks these fields of JSON bodies, each a pointer: `/card/number`, `/guests/*/name`. What is
    /// no JSON, or too long to be shown whole, is masked as a whole.
    pub fn fields<'p>(pointers: impl IntoIterator<Item = &'p str>) -> Self {
        let pointers = pointers.into_iter().map(str::to_owned);
        Self {
            fields: Some(pointers.collect()),
            dead_letters: DeadBodies::Kept,
        }
    }

    /// Stores dead letters without their bodies, unless they are sealed.
    ///
    /// What that costs: such a dead letter tells why the message failed and cannot be redriven; one
    /// that is redriven all the same is a dead letter again (`body_dropped`). Its sender has to send
    /// it anew.
    #[must_use]
    pub const fn never_in_dead_letters(mut self) -> Self {
        self.dead_letters = DeadBodies::Dropped;
        self
    }

    /// Returns a body as it may be shown.
    pub fn mask(&self, body: &[u8]) -> Bytes {
        let whole = || Bytes::from_static(b"\"***\"");
        let Some(fields) = &self.fields else {
            return whole();
        };
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
            return whole();
        };
        for pointer in fields {
            let mut tokens = pointer.split('/').skip(1).map(unescaped);
            mask_at(&mut value, &mut tokens);
        }
        serde_json::to_vec(&value).map_or_else(|_| whole(), Bytes::from)
    }

    /// Says what is wrong with its pointers.
    pub(crate) fn check(&self) -> Result<(), String> {
        let fields = self.fields.as_deref();
        if fields.is_some_and(<[String]>::is_empty) {
            return Err("it names no field; write `Redaction::body()` for all".to_owned());
        }
        let is_wrong = |one: &&String| !one.starts_with('/');
        match fields.into_iter().flatten().find(is_wrong) {
            Some(pointer) => Err(format!("pointer {pointer:?} does not begin with `/`")),
            None => Ok(()),
        }
    }
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn mask_at(value: &mut Value, tokens: &mut (impl Iterator<Item = String> + Clone)) {
    let Some(token) = tokens.next() else {
        *value = Value::String(MASK.to_owned());
        return;
    };
    let go_on = |one: &mut Value| mask_at(one, &mut tokens.clone());
    match value {
        Value::Object(map) if token == "*" => map.values_mut().for_each(go_on),
        Value::Array(list) if token == "*" => list.iter_mut().for_each(go_on),
        Value::Object(map) => {
            if let Some(one) = map.get_mut(&token) {
                go_on(one);
            }
        }
        Value::Array(list) => {
            let at = token.parse::<usize>().ok();
            if let Some(one) = at.and_then(|at| list.get_mut(at)) {
                go_on(one);
            }
        }
        _ => {}
    }
}

/// What is masked in a database, by message type: as its hosts declared it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Redactions(BTreeMap<String, Vec<Redaction>>);

impl Redactions {
    /// Reads what hosts wrote of themselves. Where they differ, as while a release rolls out, what
    /// any of them masks is masked; what cannot be read masks all.
    pub fn declared<'d>(definitions: impl IntoIterator<Item = &'d Value>) -> Self {
        let mut all = Self::default();
        for one in definitions {
            let types = one["redactions"].as_object().into_iter().flatten();
            for (name, written) in types {
                let read = Redaction::deserialize(written);
                let redaction = read.unwrap_or_else(|_| Redaction::body());
                all.0.entry(name.clone()).or_default().push(redaction);
            }
        }
        all
    }

    /// Says whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Masks the body of a message, as far as it is to be.
    pub fn mask(&self, envelope: &mut Envelope) {
        let body = self.masked(&envelope.message_type, &envelope.body);
        if let Some(masked) = body {
            envelope.body = masked;
        }
    }

    /// Returns the body of a message of this type as it may be shown; `None`: as it is.
    pub fn masked(&self, message_type: &str, body: &[u8]) -> Option<Bytes> {
        if told_of(message_type).is_some_and(|of| self.0.contains_key(of)) {
            // A fault has the other's body somewhere in its own.
            return Some(Redaction::body().mask(body));
        }
        let mut masked = Bytes::copy_from_slice(body);
        for one in self.0.get(message_type)? {
            masked = one.mask(&masked);
        }
        Some(masked)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(pointers: &[&str], body: &Value) -> Value {
        let redaction = Redaction::fields(pointers.iter().copied());
        redaction.check().unwrap();
        let shown = redaction.mask(body.to_string().as_bytes());
        serde_json::from_slice(&shown).unwrap()
    }

    #[test]
    fn fields_are_masked_where_they_are() {
        let body = json!({
            "id": 1,
            "card": { "number": "4111", "a/b": { "~": 5 } },
            "guests": [{ "name": "Ann" }, { "name": ["B", "C"] }],
        });
        let cases = [
            (&["/id"][..], json!({"id": MASK})),
            (&["/card/number"], json!({"card": {"number": MASK}})),
            (&["/card/a~1b/~0"], json!({"card": {"a/b": {"~": MASK}}})),
            (
                &["/guests/*/name"],
                json!({"guests": [{"name": MASK}, {"name": MASK}]}),
            ),
            (
                &["/guests/1", "/nothing", "/id/deeper", "/guests/x"],
                json!({"guests": [{"name": "Ann"}, MASK]}),
            ),
        ];
        for (pointers, changed) in cases {
            let mut expected = body.clone();
            merge(&mut expected, changed);
            assert_eq!(masked(pointers, &body), expected, "{pointers:?}");
        }
        assert_eq!(masked(&["/*"], &json!([1, 2])), json!([MASK, MASK]));
        assert_eq!(masked(&["/"], &json!({"": 1})), json!({"": MASK}));
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (name, value) in from {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    #[test]
    fn what_cannot_be_read_is_masked_as_a_whole() {
        let redaction = Redaction::fields(["/card"]);
        for body in ["", "{\"card\":\"41", "\u{1}", "card=4111"] {
            assert_eq!(redaction.mask(body.as_bytes()), "\"***\"", "{body:?}");
        }
        assert_eq!(Redaction::body().mask(b"{}"), "\"***\"");
    }

    #[test]
    fn what_any_host_masks_is_masked() {
        let of = |redactions: Value| json!({ "redactions": redactions });
        let hosts = [
            of(json!({ "a": { "fields": ["/x"] }, "b": { "fields": 7 } })),
            of(json!({ "a": { "fields": ["/y"] } })),
            json!({}),
        ];
        let all = Redactions::declared(&hosts);
        let shown = |name: &str| all.masked(name, br#"{"x":1,"y":2,"z":3}"#);
        assert_eq!(
            shown("a").unwrap(),
            r#"{"x":"***","y":"***","z":3}"#.as_bytes()
        );
        assert_eq!(shown("b").unwrap(), "\"***\"".as_bytes());
        assert_eq!(shown("a.fault").unwrap(), "\"***\"".as_bytes());
        assert_eq!(shown("c"), None);
    }

    #[test]
    fn a_pointer_that_points_nowhere_is_named() {
        let error = Redaction::fields(["card"]).check().unwrap_err();
        assert!(error.contains("\"card\""), "{error}");
        assert!(Redaction::fields([]).check().is_err());
    }
}
