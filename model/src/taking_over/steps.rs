//! The commit call, and what a host does around it.

use super::model::TakingOver;
use super::state::{
    Answer, FAILURES_MAX, Group, Hand, Instance, MESSAGES, Mutant, OURS, Row, Source, State, Work,
};

impl TakingOver {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Takes the units of a host that a mask names, if all of them wait or are in doubt.
    pub(crate) fn group(state: &State, host: usize, mask: u8) -> Option<Group> {
        let mut group = [None; MESSAGES];
        for (m, unit) in group.iter_mut().enumerate() {
            if mask & (1 << m) == 0 {
                continue;
            }
            match state.hands[host][m] {
                Hand::Waiting(source, work) | Hand::Doubt(source, work) => {
                    *unit = Some((source, work));
                }
                _ => return None,
            }
        }
        Some(group)
    }

    /// Commits a group: the steps of `sagabus.commit_v1`, and in their order. `None` where it has
    /// no unit; else what it is told: `Ok` when it was written or had been, `Err` for a conflict.
    pub(crate) fn commit(
        &self,
        state: &mut State,
        group: &Group,
    ) -> [Option<Result<Answer, ()>>; MESSAGES] {
        let mut answers = [None; MESSAGES];
        for (m, unit) in group.iter().enumerate() {
            answers[m] = unit.map(|(source, work)| self.commit_unit(state, m, source, work));
        }
        answers
    }

    pub(crate) fn commit_unit(
        &self,
        state: &mut State,
        m: usize,
        source: Source,
        work: Work,
    ) -> Result<Answer, ()> {
        if let Work::Release { failures } = work {
            self.release(state, m, source, failures);
            return Ok(Answer::Committed);
        }
        // 2. Sources.
        let is_first = match source {
            Source::Delivery => self.take_over(state, m, work),
            Source::Row { epoch, .. } => {
                let is_ours = state.rows[m].is_some_and(|row| row.epoch == epoch);
                is_ours || self.is(Mutant::SourceRowNotHeld) || work == Work::NoteDeath
            }
        };
        if !is_first {
            return Ok(Answer::Duplicate);
        }
        // 3. Instances, by expected version.
        if let Work::Apply { expected, data } = work {
            let instance = &mut state.instances[m];
            if instance.version != expected && !self.is(Mutant::VersionNotChecked) {
                // 4. What a loser took over is taken back.
                if source == Source::Delivery && !self.is(Mutant::LoserKeepsItsInboxRow) {
                    state.inbox[m] = false;
                }
                return Err(());
            }
            *instance = Instance {
                version: expected + 1,
                data,
            };
            state.effects[m] += 1;
        }
        // 5. and 6. Source rows go, what is sent is written.
        if source != Source::Delivery {
            state.rows[m] = None;
        }
        match work {
            Work::TakeOver { failures } => {
                let row = Row {
                    epoch: 0,
                    is_leased: false,
                    failures,
                };
                state.rows[m] = Some(row);
                state.recorded[m] = state.recorded[m].max(failures);
            }
            Work::GiveUp if self.is(Mutant::DeadLetterAfterDelete) => {}
            Work::GiveUp | Work::NoteDeath => state.dead[m] += 1,
            Work::Apply { .. } | Work::Release { .. } => {}
        }
        Ok(Answer::Committed)
    }

    /// Writes the inbox row; `false` when it was there.
    pub(crate) fn take_over(&self, state: &mut State, m: usize, work: Work) -> bool {
        let is_copy = matches!(work, Work::TakeOver { .. });
        if is_copy && self.is(Mutant::CopyWithoutTakingOver) {
            return true;
        }
        let checks = !self.is(Mutant::InboxNotUnique) && !self.is(Mutant::InboxInItsOwnTransaction);
        let is_first = !state.inbox[m] || !checks;
        state.inbox[m] = true;
        is_first
    }

    /// `Settle::Release`: conditional on the epoch.
    pub(crate) fn release(&self, state: &mut State, m: usize, source: Source, failures: u8) {
        let ignores_epoch = self.is(Mutant::SettleWithoutEpoch);
        let Some(row) = &mut state.rows[m] else {
            return;
        };
        let is_holder = matches!(source, Source::Row { epoch, .. } if epoch == row.epoch);
        if is_holder || ignores_epoch {
            row.is_leased = false;
            row.failures = failures;
            state.recorded[m] = state.recorded[m].max(failures);
        }
    }

    /// Tells a host what became of its group.
    pub(crate) fn answer(
        &self,
        state: &mut State,
        host: usize,
        group: &Group,
        answers: &[Option<Result<Answer, ()>>; MESSAGES],
    ) {
        for m in 0..MESSAGES {
            let (Some((source, work)), Some(answer)) = (group[m], answers[m]) else {
                continue;
            };
            state.hands[host][m] = match (answer, source) {
                (Ok(Answer::Committed), _)
                    if work == Work::GiveUp && self.is(Mutant::DeadLetterAfterDelete) =>
                {
                    Hand::Waiting(source, Work::NoteDeath)
                }
                (Ok(answer), Source::Delivery) => Hand::Done(answer),
                // A row is gone with its commit: there is nothing to ack.
                (Ok(_), Source::Row { .. }) => Hand::Empty,
                (Err(()), source) => Hand::Lost(source),
            };
        }
    }

    pub(crate) fn doubt(&self, state: &mut State, host: usize, group: &Group) {
        for (m, unit) in group.iter().enumerate() {
            let Some((source, work)) = *unit else {
                continue;
            };
            state.hands[host][m] = match source {
                Source::Delivery if self.is(Mutant::DoubtIsSuccess) => {
                    Hand::Done(Answer::Committed)
                }
                _ => Hand::Doubt(source, work),
            };
        }
    }

    pub(crate) fn load(&self, state: &mut State, host: usize, m: usize) {
        let (Hand::Got(source) | Hand::Lost(source)) = state.hands[host][m] else {
            return;
        };
        state.hands[host][m] = if source == Source::Delivery && state.inbox[m] {
            Hand::Done(Answer::Duplicate)
        } else {
            Hand::Loaded(source, state.instances[m])
        };
        if self.is(Mutant::InboxInItsOwnTransaction) && source == Source::Delivery {
            state.inbox[m] = true;
        }
    }

    pub(crate) fn handle(state: &mut State, host: usize, m: usize) {
        let Hand::Loaded(source, Instance { version, data }) = state.hands[host][m] else {
            return;
        };
        let work = Work::Apply {
            expected: version,
            data: data | OURS,
        };
        state.hands[host][m] = Hand::Waiting(source, work);
    }

    pub(crate) fn fail(state: &mut State, host: usize, m: usize) {
        if let Hand::Loaded(source, _) = state.hands[host][m] {
            state.hands[host][m] = Hand::Waiting(source, Self::after_failure(source));
        }
    }

    /// What follows a failure, given what the row said of earlier ones when it was claimed.
    pub(crate) fn after_failure(source: Source) -> Work {
        let Source::Row { failures, .. } = source else {
            return Work::TakeOver { failures: 1 };
        };
        let failures = failures + 1;
        if failures < FAILURES_MAX {
            Work::Release { failures }
        } else {
            Work::GiveUp
        }
    }

    /// Puts a message back as it was, or writes it down.
    pub(crate) fn put_back(state: &mut State, host: usize, m: usize) -> Option<()> {
        let (Hand::Got(source) | Hand::Loaded(source, _) | Hand::Lost(source)) =
            state.hands[host][m]
        else {
            return Self::abandon(state, host, m);
        };
        let work = match source {
            Source::Delivery => Work::TakeOver { failures: 0 },
            Source::Row { failures, .. } => Work::Release { failures },
        };
        state.hands[host][m] = Hand::Waiting(source, work);
        Some(())
    }

    /// Lets go of a handler's own transaction that is in doubt: redelivery, or the epoch, will tell.
    fn abandon(state: &mut State, host: usize, m: usize) -> Option<()> {
        let Hand::Doubt(source, Work::Apply { .. }) = state.hands[host][m] else {
            return None;
        };
        state.hands[host][m] = match source {
            Source::Delivery => {
                state.ready[m] += 1;
                Hand::Empty
            }
            Source::Row { failures, .. } => Hand::Waiting(source, Work::Release { failures }),
        };
        Some(())
    }

    /// Loads and runs a message again that was under way.
    pub(crate) fn try_again(state: &mut State, host: usize, m: usize) -> Option<()> {
        let (Hand::Loaded(source, _) | Hand::Waiting(source, Work::Apply { .. })) =
            state.hands[host][m]
        else {
            return None;
        };
        state.hands[host][m] = Hand::Lost(source);
        Some(())
    }

    pub(crate) fn kill(state: &mut State, host: usize) {
        for m in 0..MESSAGES {
            let is_delivery = match state.hands[host][m] {
                Hand::Empty => false,
                Hand::Got(source)
                | Hand::Loaded(source, _)
                | Hand::Waiting(source, _)
                | Hand::Doubt(source, _)
                | Hand::Lost(source) => source == Source::Delivery,
                Hand::Done(_) => true,
            };
            state.hands[host][m] = Hand::Empty;
            // What was acked on receipt does not come again.
            if is_delivery && !state.is_acked[m] {
                state.ready[m] += 1;
            }
        }
    }
}
