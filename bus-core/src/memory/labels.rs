//! The labels of the in-memory store: second names of instances.

use std::collections::{BTreeSet, HashMap};

use super::database::Database;
use crate::id::InstanceId;
use crate::store::Group;
use crate::unit_of_work::{InstanceChange, InstanceStatus, Label, LabelId, Outcome, UnitOfWork};

/// Which instance has which label, both ways.
#[derive(Default)]
pub(super) struct Labels {
    owners: HashMap<LabelId, InstanceId>,
    labels: HashMap<InstanceId, BTreeSet<LabelId>>,
}

impl Labels {
    pub(super) fn owner(&self, label: &LabelId) -> Option<&InstanceId> {
        self.owners.get(label)
    }

    /// Returns the labels of an instance, in the order of their names.
    pub(super) fn of(&self, id: &InstanceId) -> Vec<Label> {
        let labels = self.labels.get(id).into_iter().flatten();
        labels.map(|one| one.label.clone()).collect()
    }

    /// Says whether an instance has a label.
    pub(super) fn has(&self, id: &InstanceId, label: &Label) -> bool {
        self.owner(&label_id(id, label)) == Some(id)
    }

    /// Removes all labels of an instance.
    pub(super) fn remove(&mut self, id: &InstanceId) {
        for label in self.labels.remove(id).unwrap_or_default() {
            self.owners.remove(&label);
        }
    }

    /// Gives a label to an instance, whoever had it.
    fn give(&mut self, label: LabelId, id: &InstanceId) {
        if let Some(former) = self.owners.insert(label.clone(), id.clone())
            && let Some(labels) = self.labels.get_mut(&former)
        {
            labels.remove(&label);
        }
        self.labels.entry(id.clone()).or_default().insert(label);
    }
}

fn label_id(id: &InstanceId, label: &Label) -> LabelId {
    LabelId {
        kind: id.kind.clone(),
        label: label.clone(),
    }
}

impl Database {
    /// Refuses a label that another running instance keeps, as a unique index does.
    pub(super) fn check_labels(&self, group: &Group) -> Result<(), String> {
        let wins = |unit: &&UnitOfWork| self.decide(unit) == Outcome::Committed;
        let changes = group.units.iter().filter(wins);
        let changes: Vec<(&InstanceChange, &Vec<Label>)> = changes
            .filter_map(|unit| unit.instance.as_ref())
            .filter_map(|change| change.labels.as_ref().map(|labels| (change, labels)))
            .collect();
        let mut given: HashMap<LabelId, &InstanceId> = HashMap::new();
        for (change, labels) in &changes {
            for label in *labels {
                let label = label_id(&change.id, label);
                let is_letting_go = |owner: &&InstanceId| {
                    changes.iter().any(|(other, _)| other.id == **owner) || !self.is_running(owner)
                };
                let kept_by = self.labels.owner(&label);
                let kept_by = kept_by.filter(|owner| !is_letting_go(owner));
                let kept_by = kept_by.or_else(|| given.get(&label).copied());
                if let Some(owner) = kept_by {
                    return Err(format!("label {label} belongs to {owner}"));
                }
                given.insert(label, &change.id);
            }
        }
        Ok(())
    }

    fn is_running(&self, id: &InstanceId) -> bool {
        self.instance(id)
            .is_some_and(|one| one.status == InstanceStatus::Running)
    }

    /// Writes the labels of winners: first all that go, then all that come.
    pub(super) fn put_labels<'a>(&mut self, winners: impl Iterator<Item = &'a UnitOfWork> + Clone) {
        let changes = winners.filter_map(|unit| unit.instance.as_ref());
        for change in changes.clone().filter(|change| change.labels.is_some()) {
            self.labels.remove(&change.id);
        }
        for change in changes {
            for label in change.labels.iter().flatten() {
                self.labels.give(label_id(&change.id, label), &change.id);
            }
        }
    }
}
