//! Mistakes that can be found before the first message.

use std::collections::{BTreeMap, HashSet};

use super::definition::{Definition, Ending, From, Moment, Step, Transition, Trigger, lineage};
use sagabus_core::Message;

use crate::check::name_fault;
use crate::lock::{NotReserved, Reserved};
use crate::saga::{Saga, SagaState};

/// Lists what is wrong with a machine; each sentence says what, where and what to do.
pub(crate) fn check<S: Saga>(definition: &Definition<S>) -> Vec<String> {
    let mut faults = definition.faults.clone();
    faults.extend(name_fault(&definition.name));
    let transitions = definition.transitions();
    if !transitions.iter().any(|(from, ..)| *from == From::Initial) {
        faults.push("nothing starts it; declare a first message with `initially`".to_owned());
        return faults;
    }
    check_states(definition, &mut faults);
    check_targets(definition, &mut faults);
    check_timers(definition, &mut faults);
    check_questions(definition, &mut faults);
    check_reservations(definition, &mut faults);
    for (message_type, at) in &definition.expected {
        let is_it = |on: &str| on.split(" + ").any(|part| part == *message_type);
        if !transitions.iter().any(|(_, on, _)| is_it(on)) {
            faults.push(format!(
                "`{message_type}` is expected ({at}) and handled in no state; declare it with \
                 `during`"
            ));
        }
    }
    faults
}

/// Finds states that cannot be reached, cannot be left, or have no way to the end.
fn check_states<S: Saga>(definition: &Definition<S>, faults: &mut Vec<String>) {
    let reached = reachable(definition);
    let ending = with_a_way_out(definition);
    for state in S::State::ALL {
        let name = state.name();
        let has_parts = S::State::ALL
            .iter()
            .any(|part| part.within() == Some(*state));
        if !reached.contains(state) {
            // What only groups its parts is in force while one of them is.
            if !has_parts {
                let taken = taken_in(definition, *state);
                faults.push(format!(
                    "state `{name}` cannot be reached{taken}; add a `transition_to` it or remove it"
                ));
            }
        } else if !can_leave(definition, *state) {
            let entered = entered_by(definition, *state);
            faults.push(format!(
                "state `{name}` takes no message{entered}; declare one with `during`, or \
                 `finalize` instead of entering it"
            ));
        } else if !definition.is_endless && !ending.contains(state) {
            let entered = entered_by(definition, *state);
            faults.push(format!(
                "state `{name}` has no way to the end{entered}; `finalize` somewhere behind it, \
                 or say `.endless()` where instances live for ever"
            ));
        }
        for alias in state.aliases() {
            let other = S::State::ALL.iter().find(|other| {
                *other != state && (other.name() == *alias || other.aliases().contains(alias))
            });
            if let Some(other) = other {
                let other = other.name();
                faults.push(format!(
                    "states `{name}` and `{other}` both answer to `{alias}`; give the former name \
                     to one of them"
                ));
            }
        }
        if lineage(*state).skip(1).any(|outer| outer == *state) {
            faults.push(format!(
                "state `{name}` is within itself; `within` may form no circle"
            ));
        }
    }
}

/// Names the first message that a state takes, where one is declared in it.
fn taken_in<S: Saga>(definition: &Definition<S>, state: S::State) -> String {
    let mut transitions = definition.transitions().into_iter();
    let first = transitions.find(|(from, ..)| *from == From::State(state));
    first.map_or_else(String::new, |(_, on, one)| {
        format!(", so that `{on}` ({}) is never taken in it", one.at)
    })
}

/// Names the first message that leads to a state.
fn entered_by<S: Saga>(definition: &Definition<S>, state: S::State) -> String {
    let enters = |one: &Transition<S>| endings(one).any(|ending| ending == Ending::To(state));
    let mut transitions = definition.transitions().into_iter();
    let first = transitions.find(|(_, _, one)| enters(one));
    first.map_or_else(String::new, |(_, on, one)| {
        format!(", and `{on}` ({}) leads there", one.at)
    })
}

/// The endings of a transition: its own, and that of its failure.
fn endings<S: Saga>(transition: &Transition<S>) -> impl Iterator<Item = Ending<S::State>> {
    let failure = transition.on_failure.iter().map(|one| one.ending);
    std::iter::once(transition.ending).chain(failure)
}

/// Says whether a transition from `from` can happen in a state.
fn is_in_force<T: SagaState>(from: From<T>, state: T) -> bool {
    match from {
        From::Initial => false,
        From::State(wanted) => lineage(state).any(|one| one == wanted),
        From::Any => true,
    }
}

fn reachable<S: Saga>(definition: &Definition<S>) -> HashSet<S::State> {
    let transitions = definition.transitions();
    let mut reached: HashSet<S::State> = HashSet::new();
    loop {
        let before = reached.len();
        for (from, _, transition) in &transitions {
            let is_entered =
                *from == From::Initial || reached.iter().any(|state| is_in_force(*from, *state));
            if !is_entered {
                continue;
            }
            reached.extend(endings(transition).filter_map(|ending| match ending {
                Ending::To(state) => Some(state),
                _ => None,
            }));
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// Returns the states from which the end can be reached.
fn with_a_way_out<S: Saga>(definition: &Definition<S>) -> HashSet<S::State> {
    let transitions = definition.transitions();
    let mut ending: HashSet<S::State> = HashSet::new();
    loop {
        let before = ending.len();
        for state in S::State::ALL {
            let leads_out = |transition: &Transition<S>| {
                endings(transition).any(|one| match one {
                    Ending::Finalize => true,
                    Ending::To(next) => ending.contains(&next),
                    Ending::Stay | Ending::Ignore | Ending::Defer => false,
                })
            };
            let mut ways = transitions.iter();
            if ways.any(|(from, _, one)| is_in_force(*from, *state) && leads_out(one)) {
                ending.insert(*state);
            }
        }
        if ending.len() == before {
            return ending;
        }
    }
}

fn can_leave<S: Saga>(definition: &Definition<S>, state: S::State) -> bool {
    let transitions = definition.transitions();
    transitions
        .iter()
        .any(|(from, ..)| is_in_force(*from, state))
}

/// Says that a state is none, and what names it.
pub(super) fn undeclared<T: SagaState>(state: T, what: &str) -> Option<String> {
    let fault = || {
        let name = state.name();
        format!("{what}: state `{name}` is not in `ALL`; add it there, or derive `State`")
    };
    (!T::ALL.contains(&state)).then(fault)
}

/// Finds targets and hooks that name a state which is none.
fn check_targets<S: Saga>(definition: &Definition<S>, faults: &mut Vec<String>) {
    for (_, on, transition) in definition.transitions() {
        for ending in endings(transition) {
            if let Ending::To(state) = ending {
                let what = format!("`{on}` ({})", transition.at);
                faults.extend(undeclared(state, &what));
            }
        }
    }
    for hook in &definition.hooks {
        if let Moment::Entering(state) | Moment::Leaving(state) = hook.moment {
            let what = format!("a hook ({})", hook.at);
            faults.extend(undeclared(state, &what));
        }
    }
}

/// Lists the steps of a verb with the place of their transition.
fn steps<S: Saga>(definition: &Definition<S>, verb: &str) -> Vec<(Step, String)> {
    let mut found = Vec::new();
    let mut add = |steps: &[Step], place: &str| {
        let wanted = steps.iter().filter(|step| step.verb == verb);
        found.extend(wanted.map(|step| (step.clone(), place.to_owned())));
    };
    for (from, on, transition) in definition.transitions() {
        let state = match from {
            From::Initial => "`initially`".to_owned(),
            From::State(state) => format!("state `{}`", state.name()),
            From::Any => "`during_any`".to_owned(),
        };
        let place = format!("`{on}` in {state}, {}", transition.at);
        add(&transition.performance.steps, &place);
        if let Some(failure) = &transition.on_failure {
            add(&failure.performance.steps, &place);
        }
    }
    for hook in &definition.hooks {
        let place = format!("on entering or leaving a state, {}", hook.at);
        add(&hook.performance.steps, &place);
    }
    found
}

/// Finds timers whose message is handled nowhere.
fn check_timers<S: Saga>(definition: &Definition<S>, faults: &mut Vec<String>) {
    for (step, place) in steps(definition, "schedule") {
        let (name, brings) = (&step.what, step.brings.unwrap_or_default());
        let is_handled = definition.transitions().iter().any(|(from, on, _)| {
            *from != From::Initial && on.split(" + ").any(|part| part == brings)
        });
        if !is_handled {
            faults.push(format!(
                "timer `{name}` ({place}) brings `{brings}`, which no state takes; declare it \
                 with `during`"
            ));
        }
    }
}

/// Says what is wrong with the name of a question, which travels in a header.
fn question_fault(name: &str, place: &str) -> Option<String> {
    let is_usable = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    let fault = || {
        format!("question `{name}` ({place}) needs a name of visible ASCII characters without `:`")
    };
    (!is_usable).then(fault)
}

/// Finds reservations without the branches that they need.
fn check_reservations<S: Saga>(definition: &Definition<S>, faults: &mut Vec<String>) {
    for (step, place) in steps(definition, "reserve") {
        let name = step.what.as_str();
        faults.extend(question_fault(name, &place));
        for (wanted, branch) in [
            (Reserved::TYPE, "Reserved"),
            (NotReserved::TYPE, "NotReserved"),
        ] {
            let has_it = definition.transitions().iter().any(|(_, _, one)| {
                matches!(&one.trigger, Trigger::Answer(request, facts)
                    if *request == name && facts.message_type() == wanted)
            });
            if !has_it {
                faults.push(format!(
                    "`{name}` is reserved ({place}) without a branch for the answer; declare it \
                     with `when_answered::<{branch}>(\"{name}\")`"
                ));
            }
        }
        let is_question = |(other, _): &(Step, String)| other.what == name;
        let verbs = ["ask", "schedule"].map(|verb| steps(definition, verb));
        if verbs.iter().flatten().any(is_question) {
            faults.push(format!(
                "`{name}` is reserved ({place}) under the name of a question or timer; name one \
                 differently"
            ));
        }
    }
}

/// Finds questions without the branches that they need, and branches without their question.
fn check_questions<S: Saga>(definition: &Definition<S>, faults: &mut Vec<String>) {
    let asked = steps(definition, "ask");
    let reserved = steps(definition, "reserve");
    let all = asked.iter().chain(&reserved).cloned();
    let all: Vec<_> = all.collect();
    let mut branches: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (_, _, transition) in definition.transitions() {
        let kind = match transition.trigger {
            Trigger::Failed(_) => "when_failed",
            Trigger::TimedOut(_) => "when_timed_out",
            _ => "when_answered",
        };
        if let Some(request) = transition.trigger.request() {
            branches.entry(request).or_default().insert(kind);
            if !all.iter().any(|(step, _)| step.what == request) {
                let at = transition.at;
                faults.push(format!(
                    "question `{request}` has a branch ({at}) and is never asked; ask it with \
                     `.ask(\"{request}\", ..)`"
                ));
            }
        }
    }
    let timers = steps(definition, "schedule");
    for (step, place) in asked {
        let name = step.what.as_str();
        faults.extend(question_fault(name, &place));
        if timers.iter().any(|(timer, _)| timer.what == name) {
            faults.push(format!(
                "question `{name}` ({place}) has the name of a timer; name one differently"
            ));
        }
        for kind in ["when_failed", "when_timed_out"] {
            if !branches.get(name).is_some_and(|known| known.contains(kind)) {
                faults.push(format!(
                    "question `{name}` ({place}) has no branch for when it is not answered; \
                     declare one with `{kind}(\"{name}\")`"
                ));
            }
        }
    }
}
