//! Runs the checker over a model, whole or with one mutant.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// A model of one part of the design, which can be built with a defect.
pub(crate) trait Design: Model + Send + Sync + Sized + 'static
where
    Self::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    Self::Action: Clone + Debug + PartialEq,
{
    /// One word.
    const NAME: &'static str;
    /// What may be wrong with it.
    type Mutant: Copy + Debug + Send + Sync;
    /// Every mutant with the property that must catch it.
    const MUTANTS: &'static [(Self::Mutant, &'static str)];

    /// Builds the design, with a defect if one is given.
    fn build(mutant: Option<Self::Mutant>) -> Self;
}

/// What the exploration of an unmutated model found.
#[derive(Clone, Debug)]
pub struct Holds {
    /// The model.
    pub model: &'static str,
    /// Different states that were reached; every one that can be.
    pub states: usize,
    /// Steps to the one that is farthest away.
    pub depth: usize,
    /// Properties with a counterexample, each with the steps that lead to it. Empty when it holds.
    pub violated: Vec<(&'static str, Vec<String>)>,
    /// Interesting states that were never reached. Empty unless the model is vacuous.
    pub unreached: Vec<&'static str>,
    /// Properties that were checked in every state.
    pub properties: Vec<&'static str>,
    /// Interesting states that were reached.
    pub reached: Vec<&'static str>,
}

/// What became of one mutant.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The model.
    pub model: &'static str,
    /// The defect.
    pub mutant: String,
    /// The property that must catch it.
    pub property: &'static str,
    /// Steps of the shortest counterexample; `None` when the property held.
    pub steps: Option<usize>,
    /// States that were looked at.
    pub states: usize,
}

/// Explores every state of the design as it is.
pub(crate) fn explore<D: Design>() -> Holds
where
    D::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    D::Action: Clone + Debug + PartialEq,
{
    let checker = D::build(None).checker().spawn_bfs().join();
    let mut found = checker.discoveries();
    let mut holds = Holds {
        model: D::NAME,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violated: Vec::new(),
        unreached: Vec::new(),
        properties: Vec::new(),
        reached: Vec::new(),
    };
    for property in checker.model().properties() {
        let name = property.name;
        match (property.expectation, found.remove(name)) {
            (Expectation::Sometimes, Some(_)) => holds.reached.push(name),
            (Expectation::Sometimes, None) => holds.unreached.push(name),
            (_, None) => holds.properties.push(name),
            (_, Some(path)) => {
                let steps = path.into_actions();
                let steps = steps.iter().map(|step| format!("{step:?}")).collect();
                holds.violated.push((name, steps));
            }
        }
    }
    holds
}

/// Looks for the shortest way in which each mutant breaks its property.
pub(crate) fn catch<D: Design>() -> Vec<Caught>
where
    D::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    D::Action: Clone + Debug + PartialEq,
{
    let each = D::MUTANTS.iter().map(|(mutant, property)| {
        let wanted = HasDiscoveries::AllOf(BTreeSet::from([*property]));
        let checker = D::build(Some(*mutant)).checker();
        let checker = checker.finish_when(wanted).spawn_bfs().join();
        let steps = checker.discovery(property);
        Caught {
            model: D::NAME,
            mutant: format!("{mutant:?}"),
            property,
            steps: steps.map(|path| path.into_actions().len()),
            states: checker.unique_state_count(),
        }
    });
    each.collect()
}
