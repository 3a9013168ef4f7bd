//! What differs between two JSON values, place by place.

use serde_json::Value;

/// A place where two values differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: names and indexes with slashes, as a JSON pointer; empty: the whole.
    pub path: String,
    /// What was there; none: nothing.
    pub before: Option<Value>,
    /// What is there; none: nothing.
    pub after: Option<Value>,
}

/// Lists where two values differ, in the order of the places.
pub fn between(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    look(String::new(), Some(before), Some(after), &mut found);
    found
}

fn look(path: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                look(
                    format!("{path}/{escaped}"),
                    old.get(name),
                    new.get(name),
                    found,
                );
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                look(format!("{path}/{at}"), old.get(at), new.get(at), found);
            }
        }
        (before, after) if before == after => {}
        (before, after) => found.push(Difference {
            path,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_that_differ_are_named_and_no_others() {
        let before = json!({ "a": 1, "b": { "c": [1, 2], "d/e": null }, "gone": true });
        let after = json!({ "a": 1, "b": { "c": [1, 3, 4], "d/e": {} }, "new": "x" });
        let told: Vec<_> = between(&before, &after)
            .into_iter()
            .map(|one| (one.path, one.before, one.after))
            .collect();
        let expected = [
            ("/b/c/1", Some(json!(2)), Some(json!(3))),
            ("/b/c/2", None, Some(json!(4))),
            ("/b/d~1e", Some(json!(null)), Some(json!({}))),
            ("/gone", Some(json!(true)), None),
            ("/new", None, Some(json!("x"))),
        ];
        let expected = expected.map(|(path, before, after)| (path.to_owned(), before, after));
        assert_eq!(told, expected);
        assert_eq!(between(&before, &before), []);
        assert_eq!(between(&json!(1), &json!("1"))[0].path, "");
    }
}
