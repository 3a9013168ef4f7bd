//! What follows a try that did not succeed: who is to blame, what it costs, whether it is the last.

use crate::error::{Class, HandlerError};
use crate::handler::Subscriber;
use crate::handling::{Case, End};
use crate::retry::{Decision, Retry};
use crate::unit_of_work::Reason;

/// Reruns after a conflict, before the message is written down for a moment later.
const CONFLICTS_MAX: u32 = 3;

impl Case<'_> {
    /// Says how a try ended that left an error.
    pub(crate) fn end_of(&self, error: HandlerError, is_excused: bool) -> End {
        if is_excused {
            // The outage is in the log once, by those who talk to the database all the time.
            let (id, error) = (self.arrival.envelope().id, error.chain());
            tracing::debug!(%id, error, "try ended by the database; costs no attempt");
            return End::Excused(error);
        }
        End::Failed(error)
    }

    /// Records a failed try and says what follows.
    pub(crate) fn failed(&mut self, error: &HandlerError, subscriber: &dyn Subscriber) -> Decision {
        self.endpoint.counters.failed_attempts.increment();
        let (class, text) = (error.class(), error.chain());
        // What only this message is to blame for says nothing about the others.
        let is_shared = matches!(
            class,
            Class::Retry | Class::RetryAs(_) | Class::RetryAfter(_)
        );
        let id = self.arrival.envelope().id;
        let is_paused = is_shared && self.endpoint.gate.failed(id, &text, self.is_news());
        match class {
            Class::Conflict => return self.excused(text),
            Class::RetryAfter(_) | Class::Elsewhere(..) => {
                self.tries.excuse(&self.endpoint.host.name, text);
            }
            Class::Retry | Class::RetryAs(_) if is_paused => return self.held(),
            _ => self.tries.fail(&self.endpoint.host.name, text),
        }
        let (failures, excuses) = (self.tries.failures(), self.tries.excuses());
        let decision = self.retry().decide(class, failures, excuses);
        let gives_up = matches!(
            decision,
            Decision::Dead(Reason::AttemptsExhausted | Reason::ExcusesExhausted | Reason::Terminal)
        );
        if gives_up && self.given_up.is_none() && subscriber.compensates() {
            self.given_up = Some(error.chain());
            return Decision::Now;
        }
        decision
    }

    /// Says what follows a try that the database ended.
    pub(crate) fn ended_by_database(&mut self, cause: String) -> Decision {
        let id = self.arrival.envelope().id;
        match self.endpoint.gate.failed(id, &cause, self.is_news()) {
            true => self.held(),
            false => self.excused(cause),
        }
    }

    /// Says whether a failure of this message tells something about the others: one that went on
    /// failing while others succeeded is to blame itself.
    fn is_news(&self) -> bool {
        self.tries.failures() == 0 && !self.was_held
    }

    /// Says what follows a failure while the endpoint is paused: the message waits at the gate, and
    /// nothing is written. How often does not matter: it is no more than a probe.
    fn held(&mut self) -> Decision {
        self.was_held = true;
        Decision::Held
    }

    /// Says what follows a try that others or the database ended: a few more at once, which nobody
    /// counts, then one that is written down and counted.
    pub(crate) fn excused(&mut self, cause: String) -> Decision {
        if self.conflicts < CONFLICTS_MAX {
            self.conflicts += 1;
            return Decision::Reload;
        }
        self.tries.excuse(&self.endpoint.host.name, cause);
        self.retry().excuse(self.tries.excuses())
    }

    /// Returns how often a message of this type is tried.
    pub(crate) fn retry(&self) -> &Retry {
        let message_type = &self.arrival.envelope().message_type;
        self.endpoint.retries.of(message_type)
    }
}
