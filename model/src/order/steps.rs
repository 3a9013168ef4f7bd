//! The statements, and the locks that they take.

use super::model::Ordered;
use super::state::{Behind, HOSTS, Host, Mutant, OF_A_STRANGER, ROWS, Row, State, When, Writer};

impl State {
    /// Says whether a statement that begins now sees the row.
    pub(crate) fn is_seen(&self, row: usize) -> bool {
        matches!(self.rows[row], Row::There { .. })
    }

    /// Says whether a transaction has the row locked against claims and updates.
    pub(crate) fn is_locked(&self, row: usize) -> bool {
        self.hosts.iter().any(|host| match *host {
            Host::Locked(locked) | Host::Looked { row: locked, .. } | Host::Deleted(locked) => {
                locked == row
            }
            Host::Pulled { row: locked, next } => locked == row || next == Some(row),
            Host::Idle | Host::Holding { .. } => false,
        })
    }

    /// Says whether an open transaction refers to the row, which keeps it from being deleted.
    pub(crate) fn is_referred_to(&self, row: usize) -> bool {
        let is_read = self.hosts.iter().any(
            |host| matches!(*host, Host::Looked { behind: Behind::Held(held), .. } if held == row),
        );
        is_read || self.writers.iter().any(|writer| {
            matches!(*writer, Writer::Looked(Behind::Held(held)) | Writer::Inserted(Behind::Held(held)) if held == row)
        })
    }

    pub(crate) fn is_deleted_by_somebody(&self, row: usize) -> bool {
        self.hosts.iter().any(|host| {
            matches!(*host, Host::Deleted(gone) | Host::Pulled { row: gone, .. } if gone == row)
        })
    }

    /// Says whether some transaction is open.
    pub(crate) fn is_any_open(&self) -> bool {
        let is_writing =
            |writer: &Writer| matches!(writer, Writer::Looked(_) | Writer::Inserted(_));
        let is_quiet = |host: &Host| matches!(host, Host::Idle | Host::Holding { .. });
        self.writers.iter().any(is_writing) || !self.hosts.iter().all(is_quiet)
    }
}

impl Ordered {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn look_before(&self, state: &mut State, row: usize) {
        let youngest = (0..row).rev().find(|older| state.is_seen(*older));
        for older in 0..row {
            state.before[row][older] = state.is_seen(older);
        }
        let behind = match youngest {
            None => Behind::Nobody,
            // Where the lock would last as long as a stranger's transaction, the claim decides.
            Some(_) if row == OF_A_STRANGER => Behind::Unsure,
            Some(older) if state.is_deleted_by_somebody(older) => Behind::Unsure,
            Some(older) => Behind::Held(older),
        };
        state.writers[row] = Writer::Looked(behind);
    }

    /// Makes a row visible as it was inserted.
    pub(crate) fn commit_row(&self, state: &mut State, row: usize) {
        let Writer::Inserted(behind) = state.writers[row] else {
            return;
        };
        let when = match behind {
            Behind::Held(_) => When::Far,
            Behind::Nobody | Behind::Unsure => When::Now,
        };
        state.rows[row] = Row::There { when, epoch: 0 };
        state.writers[row] = Writer::Committed;
    }

    pub(crate) fn may_be_born_leased(&self, state: &State, row: usize) -> bool {
        match state.writers[row] {
            Writer::Inserted(Behind::Nobody) => true,
            Writer::Inserted(_) => self.is(Mutant::BornLeasedBehindOthers),
            _ => false,
        }
    }

    /// Looks for an older row that is sure to be there when the claim is over.
    pub(crate) fn look_for_older(&self, state: &mut State, host: usize) {
        let Host::Locked(row) = state.hosts[host] else {
            return;
        };
        let is_sure = |older: &usize| {
            !state.is_deleted_by_somebody(*older) || self.is(Mutant::DeferredBehindWhatGoes)
        };
        let mut older = (0..row).rev().filter(|older| state.is_seen(*older));
        let behind = match older.clone().find(is_sure) {
            Some(held) => Behind::Held(held),
            None if older.next().is_some() => Behind::Unsure,
            None => Behind::Nobody,
        };
        state.hosts[host] = Host::Looked { row, behind };
    }

    pub(crate) fn end_claim(&self, state: &mut State, host: usize) {
        let Host::Looked { row, behind } = state.hosts[host] else {
            return;
        };
        let Row::There { epoch, .. } = state.rows[row] else {
            return;
        };
        if behind != Behind::Nobody && !self.is(Mutant::ClaimOutOfOrder) {
            // One that was claimed before is not pulled, and comes by itself.
            let is_sure = matches!(behind, Behind::Held(_));
            let when = if is_sure && epoch == 0 {
                When::Far
            } else {
                When::Soon
            };
            state.rows[row] = Row::There { when, epoch };
            state.hosts[host] = Host::Idle;
            return;
        }
        let epoch = epoch + 1;
        state.rows[row] = Row::There {
            when: When::Leased,
            epoch,
        };
        state.hosts[host] = Host::Holding { row, epoch };
    }

    /// Says whether a holder's delete need not wait for anybody.
    pub(crate) fn may_delete(&self, state: &State, row: usize) -> bool {
        let waits = state.is_referred_to(row) && !self.is(Mutant::DeferredWithoutLock);
        !waits && !state.is_locked(row)
    }

    pub(crate) fn delete(state: &mut State, host: usize) {
        let Host::Holding { row, epoch } = state.hosts[host] else {
            return;
        };
        let is_ours = matches!(state.rows[row], Row::There { epoch: now, .. } if now == epoch);
        state.hosts[host] = if is_ours {
            Host::Deleted(row)
        } else {
            Host::Idle
        };
    }

    /// Pulls what comes next; `None` while it has to wait for a lock.
    pub(crate) fn pull(&self, state: &mut State, host: usize) -> Option<()> {
        let Host::Deleted(row) = state.hosts[host] else {
            return None;
        };
        let is_new = |found: &usize| {
            let is_mine = *found == row;
            let is_new = matches!(state.rows[*found], Row::There { epoch: 0, .. });
            state.is_seen(*found) && !is_mine && (is_new || self.is(Mutant::OnlyTheOldestIsPulled))
        };
        let far = Row::There {
            when: When::Far,
            epoch: 0,
        };
        let next = (0..ROWS)
            .find(is_new)
            .filter(|found| state.rows[*found] == far)
            .filter(|_| !self.is(Mutant::FollowerDeferredForEver));
        if next.is_some_and(|found| state.is_locked(found)) {
            return None;
        }
        state.hosts[host] = Host::Pulled { row, next };
        Some(())
    }

    pub(crate) fn commit_settle(state: &mut State, host: usize) {
        let Host::Pulled { row, next } = state.hosts[host] else {
            return;
        };
        state.rows[row] = Row::Gone;
        if let Some(next) = next {
            state.rows[next] = Row::There {
                when: When::Now,
                epoch: 0,
            };
        }
        state.hosts[host] = Host::Idle;
    }

    pub(crate) fn release(state: &mut State, host: usize) {
        let Host::Holding { row, epoch } = state.hosts[host] else {
            return;
        };
        if matches!(state.rows[row], Row::There { epoch: now, .. } if now == epoch) {
            state.rows[row] = Row::There {
                when: When::Soon,
                epoch,
            };
        }
        state.hosts[host] = Host::Idle;
    }

    /// Says whether every row that a held one comes after is gone.
    pub(crate) fn keeps_order(state: &State) -> bool {
        (0..HOSTS).all(|host| match state.hosts[host] {
            Host::Holding { row, .. } => {
                (0..row).all(|older| !state.before[row][older] || state.rows[older] == Row::Gone)
            }
            _ => true,
        })
    }
}
