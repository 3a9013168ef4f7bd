//! What the broker can be told to do wrong, and whose turn it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What goes wrong with a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// It is not taken, and the confirm says so.
    Nack,
    /// It is not taken, and returned as unroutable.
    Return,
    /// It is delivered twice.
    Duplicate,
    /// It is confirmed at once and delivered later.
    Delay {
        /// How much later, in milliseconds.
        ms: u64,
    },
    /// It is confirmed at once and delivered after the next publication, or after 200 ms.
    Overtake,
    /// The connection is cut before it is taken.
    CutBeforeTaking,
    /// It is taken, and the connection is cut before the confirm.
    CutBeforeConfirm,
    /// It is taken and confirmed, and then the connection is cut.
    CutAfterConfirm,
    /// It is taken, and no confirm ever comes.
    Withhold,
}

impl Effect {
    /// Returns the word under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nack => "nack",
            Self::Return => "return",
            Self::Duplicate => "duplicate",
            Self::Delay { .. } => "delay",
            Self::Overtake => "overtake",
            Self::CutBeforeTaking => "cut_before_taking",
            Self::CutBeforeConfirm => "cut_before_confirm",
            Self::CutAfterConfirm => "cut_after_confirm",
            Self::Withhold => "withhold",
        }
    }
}

/// An effect, and which publications it hits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    pub effect: Effect,
    /// With publications to this address only.
    pub address: Option<String>,
    /// How many of them pass first.
    pub pass: u32,
    /// How many of them are hit.
    pub times: u32,
}

impl Fault {
    /// Hits the next publication, wherever it goes.
    pub fn once(effect: Effect) -> Self {
        Self::times(effect, 1)
    }

    /// Hits the next publications, wherever they go.
    pub fn times(effect: Effect, times: u32) -> Self {
        Self {
            effect,
            address: None,
            pass: 0,
            times,
        }
    }

    /// Delays by a duration.
    pub fn delay(by: Duration, times: u32) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::times(Effect::Delay { ms }, times)
    }

    /// Hits publications to one address only.
    #[must_use]
    pub fn at(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Lets some pass first.
    #[must_use]
    pub fn after(mut self, pass: u32) -> Self {
        self.pass = pass;
        self
    }
}

/// The faults that are still to come, and how many have happened.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    faults: Vec<Fault>,
    fired: BTreeMap<String, u64>,
}

impl FaultPlan {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// Decides about one publication: the first fault that it counts for and that hits it.
    pub(super) fn decide(&mut self, address: &str) -> Option<Effect> {
        let mut effect = None;
        for fault in &mut self.faults {
            let is_meant = fault.address.as_deref().is_none_or(|at| at == address);
            if !is_meant || fault.times == 0 {
                continue;
            }
            if fault.pass > 0 {
                fault.pass -= 1;
            } else if effect.is_none() {
                fault.times -= 1;
                effect = Some(fault.effect);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        if let Some(effect) = effect {
            self.count(effect.name());
        }
        effect
    }

    /// Counts something that happened.
    pub(super) fn count(&mut self, name: &str) {
        *self.fired.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn fired(&self) -> BTreeMap<String, u64> {
        self.fired.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_whom_it_means_and_is_counted() {
        let mut plan = FaultPlan::default();
        plan.inject(Fault::times(Effect::Nack, 2).at("a").after(1));
        plan.inject(Fault::once(Effect::Duplicate));
        let addresses = ["a", "b", "a", "a", "a"];
        let effects = addresses.map(|address| plan.decide(address));
        assert_eq!(
            effects,
            [
                Some(Effect::Duplicate),
                None,
                Some(Effect::Nack),
                Some(Effect::Nack),
                None
            ]
        );
        let expected = [("duplicate".to_owned(), 1), ("nack".to_owned(), 2)];
        assert_eq!(plan.fired(), expected.into());
    }
}
