//! Mistakes that can be found before the first message.

use std::collections::HashSet;

use super::definition::{Definition, Ending, From};
use crate::saga::{Saga, SagaState};

/// Lists what is wrong with a machine; each sentence says what and what to do.
pub(crate) fn check<S: Saga>(definition: &Definition<S>) -> Vec<String> {
    let mut faults = definition.faults.clone();
    let name = &definition.name;
    let is_usable =
        !name.is_empty() && name.len() <= 100 && name.bytes().all(|b| b.is_ascii_graphic());
    if !is_usable {
        faults.push("its name must be 1 to 100 visible ASCII characters".to_owned());
    }
    if !definition
        .transitions()
        .any(|(from, ..)| from == From::Initial)
    {
        faults.push("nothing starts it; declare a first message with `initially`".to_owned());
        return faults;
    }
    let reached = reachable(definition);
    for state in S::State::ALL {
        let state_name = state.name();
        if !reached.contains(state) {
            faults.push(format!(
                "state `{state_name}` cannot be reached; add a `transition_to` it or remove it"
            ));
        } else if !can_leave(definition, *state) {
            faults.push(format!(
                "state `{state_name}` takes no message; declare one with `during`, or `finalize` \
                 instead of entering it"
            ));
        }
    }
    faults
}

fn reachable<S: Saga>(definition: &Definition<S>) -> HashSet<S::State> {
    let mut reached = HashSet::new();
    loop {
        let before = reached.len();
        for (from, _, transition) in definition.transitions() {
            let is_entered = match from {
                From::Initial => true,
                From::State(state) => reached.contains(&state),
                From::Any => !reached.is_empty(),
            };
            if let (true, Ending::To(state)) = (is_entered, transition.ending) {
                reached.insert(state);
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

fn can_leave<S: Saga>(definition: &Definition<S>, state: S::State) -> bool {
    let takes = |from| from == From::State(state) || from == From::Any;
    definition.transitions().any(|(from, ..)| takes(from))
}
