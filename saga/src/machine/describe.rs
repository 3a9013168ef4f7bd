//! A machine for people and tools: as JSON, and drawn from that.

use std::collections::BTreeSet;

use sagabus_core::Kind;
use serde_json::{Value, json};

use super::definition::{Definition, Ending, From, Moment, Performance, Transition};
use crate::saga::{Saga, SagaState};

impl<S: Saga> Definition<S> {
    /// Describes the machine for tools that cannot see user code.
    pub(crate) fn describe(&self) -> Value {
        let mut transitions = Vec::new();
        for (from, on, one) in self.transitions() {
            transitions.push(describe::<S>(from, &on, one, one.condition.is_some(), "if"));
            if let Some(failure) = &one.on_failure {
                transitions.push(describe::<S>(from, &on, failure, true, "gives up"));
            }
        }
        let hooks = self.hooks.iter().map(|hook| {
            let (when, state) = match hook.moment {
                Moment::Entering(state) => ("enter", Some(state.name())),
                Moment::Leaving(state) => ("leave", Some(state.name())),
                Moment::BeforeEnteringAny => ("before any", None),
                Moment::AfterLeavingAny => ("after any", None),
                Moment::Finishing => ("end", None),
            };
            json!({ "when": when, "state": state, "steps": steps(&hook.performance) })
        });
        let within = S::State::ALL.iter().filter_map(|state| {
            let outer = state.within()?;
            Some((state.name().to_owned(), json!(outer.name())))
        });
        let within: serde_json::Map<_, _> = within.collect();
        let former = S::State::ALL.iter().flat_map(|state| {
            let aliases = state.aliases().iter();
            aliases.map(|alias| ((*alias).to_owned(), json!(state.name())))
        });
        let former: serde_json::Map<_, _> = former.collect();
        json!({
            "machine": self.name,
            "schema_version": S::SCHEMA_VERSION,
            "states": S::State::ALL.iter().map(|state| state.name()).collect::<Vec<_>>(),
            "within": within,
            "former_states": former,
            "transitions": transitions,
            "hooks": hooks.collect::<Vec<_>>(),
            "sends": self.sends(),
        })
    }
}

impl<S: Saga> Definition<S> {
    /// Lists what it sends to others, each type once.
    fn sends(&self) -> Vec<Value> {
        let steps = self.performances().into_iter().flat_map(|one| &one.steps);
        let sent = steps.filter_map(|step| {
            let kind = match step.verb {
                "send" | "ask" | "reserve" => Kind::Command,
                "publish" => Kind::Event,
                "reply" | "respond" => Kind::Reply,
                _ => return None,
            };
            Some((step.brings?, kind.as_str()))
        });
        let each: BTreeSet<_> = sent.collect();
        let each = each.into_iter();
        each.map(|(message_type, kind)| json!({ "type": message_type, "kind": kind }))
            .collect()
    }
}

fn describe<S: Saga>(
    from: From<S::State>,
    on: &str,
    one: &Transition<S>,
    has_case: bool,
    case: &str,
) -> Value {
    let from = match from {
        From::Initial => Value::Null,
        From::State(state) => json!(state.name()),
        From::Any => json!("*"),
    };
    let mut steps = steps(&one.performance);
    let to = match one.ending {
        Ending::To(state) => json!(state.name()),
        Ending::Finalize => json!("final"),
        Ending::Stay => from.clone(),
        Ending::Ignore => {
            steps.push("ignore".to_owned());
            from.clone()
        }
        Ending::Defer => {
            steps.push("defer".to_owned());
            from.clone()
        }
    };
    let on = match one.trigger.request() {
        Some(request) => format!("{on} [{request}]"),
        None => on.to_owned(),
    };
    let mut described = json!({ "from": from, "on": on, "to": to, "steps": steps });
    if has_case {
        described["case"] = json!(case);
    }
    described
}

fn steps<S>(performance: &Performance<S>) -> Vec<String> {
    let steps = performance.steps.iter();
    steps
        .map(|step| match step.is_in_one_case {
            true => format!("{} {} (in one case)", step.verb, step.what),
            false => format!("{} {}", step.verb, step.what),
        })
        .collect()
}

/// Draws a described machine as a Mermaid state diagram.
///
/// The description is what [`StateMachine::describe`](super::StateMachine::describe) returns and
/// hosts store; anything else draws an empty diagram.
pub fn mermaid(description: &Value) -> String {
    let mut text = "stateDiagram-v2\n".to_owned();
    for state in list(description, "states") {
        let name = state.as_str().unwrap_or_default();
        if id(name) != name {
            text += &format!("    state \"{name}\" as {}\n", id(name));
        }
    }
    let within = description["within"].as_object();
    for (inner, outer) in within.into_iter().flatten() {
        let (inner, outer) = (id(inner), id(outer.as_str().unwrap_or_default()));
        text += &format!("    state {outer} {{\n        {inner}\n    }}\n");
    }
    for (from, to, label) in edges(description) {
        let place = |name: &str| {
            if name.is_empty() {
                "[*]".to_owned()
            } else {
                id(name)
            }
        };
        // A colon ends the label in Mermaid.
        let label = label.replace(':', "#58;");
        text += &format!("    {} --> {} : {label}\n", place(&from), place(&to));
    }
    text
}

/// Draws a described machine in the language of Graphviz.
pub fn dot(description: &Value) -> String {
    let name = description["machine"].as_str().unwrap_or_default();
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("digraph {} {{\n    rankdir=LR;\n", quoted(name));
    text += "    start [shape=point]; end [shape=doublecircle, label=\"\"];\n";
    for state in list(description, "states") {
        let name = quoted(state.as_str().unwrap_or_default());
        text += &format!("    {name} [shape=box, style=rounded];\n");
    }
    for (from, to, label) in edges(description) {
        let place = |name: &str, empty: &str| {
            if name.is_empty() {
                empty.to_owned()
            } else {
                quoted(name)
            }
        };
        let (from, to) = (place(&from, "start"), place(&to, "end"));
        text += &format!("    {from} -> {to} [label={}];\n", quoted(&label));
    }
    text + "}\n"
}

fn list<'a>(description: &'a Value, name: &str) -> &'a [Value] {
    description[name].as_array().map_or(&[], Vec::as_slice)
}

/// Lists what is drawn: from, to and label; an empty name is the start or the end. What happens in
/// any state is drawn from each.
fn edges(description: &Value) -> Vec<(String, String, String)> {
    let mut edges = Vec::new();
    let states = list(description, "states");
    for one in list(description, "transitions") {
        let on = one["on"].as_str().unwrap_or_default();
        let case = one["case"].as_str().map(|case| format!(" ({case})"));
        let label = format!("{on}{}", case.unwrap_or_default());
        let to = one["to"].as_str().unwrap_or_default();
        let froms: Vec<&str> = match one["from"].as_str() {
            None => vec![""],
            Some("*") => states.iter().filter_map(Value::as_str).collect(),
            Some(from) => vec![from],
        };
        for from in froms {
            let to = match to {
                "final" => "",
                "*" => from,
                to => to,
            };
            edges.push((from.to_owned(), to.to_owned(), label.clone()));
        }
    }
    edges
}

/// Makes a name that Mermaid takes for an identifier.
fn id(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect()
}
