//! The keeper of a lock: a saga whose key is the lock's name.

use std::collections::VecDeque;
use std::sync::Arc;

use sagabus_core::request::Request;
use sagabus_core::unit_of_work::Origin;
use sagabus_core::{HandlerError, Message, MessageId, Result};
use serde::{Deserialize, Serialize};

use super::messages::{
    BreakLock, NotReserved, PatienceOver, Policy, Refusal, Release, ReservationLost, Reserve,
    Reserved,
};
use crate::effects::{origin, outgoing, response};
use crate::handlers::{HandlerSaga, Handles, NamedSaga, SagaCtx, Starts, saga};
use crate::saga::Saga;

/// The kind of the instances that locks are.
pub const KIND: &str = "sagabus.lock";

/// Those who may wait for one lock: every message about it carries them along. At about 300 bytes
/// each they stay well under a mebibyte.
const WAITING_MAX: usize = 1_000;

/// Who has a lock, and who waits for it, in the order in which they came.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lock {
    resource: String,
    holder: Option<Claimant>,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    waiting: VecDeque<Claimant>,
}

/// An instance that has the lock or waits for it, and how it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claimant {
    kind: Arc<str>,
    key: Arc<str>,
    /// The question by which it asked, and which asking of it.
    name: String,
    generation: u64,
    reserve: MessageId,
    origin: Origin,
}

impl Claimant {
    fn of(cx: &SagaCtx) -> Result<Self> {
        let request = Request::read(cx.headers()).ok_or_else(|| {
            let error = "a lock is reserved by a saga or machine, with `.reserve(..)`";
            HandlerError::new(error).terminal()
        })?;
        Ok(Self {
            kind: request.instance.kind,
            key: request.instance.key,
            name: request.name,
            generation: request.generation,
            reserve: cx.message_id(),
            origin: origin(cx),
        })
    }

    fn who(&self) -> (String, String) {
        (self.kind.to_string(), self.key.to_string())
    }

    fn is_same_instance(&self, other: &Self) -> bool {
        (&self.kind, &self.key) == (&other.kind, &other.key)
    }

    fn is_meant(&self, release: &Release) -> bool {
        (&*self.kind, &*self.key) == (&*release.kind, &*release.key)
            && self.name == release.name
            && self.generation == release.generation
    }

    fn tell<M: Message>(&self, cx: &mut SagaCtx, news: &M) -> Result {
        let answer = response(outgoing(news)?, Some(&self.origin))?;
        cx.effects.send(answer);
        Ok(())
    }
}

impl Lock {
    fn free(resource: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            holder: None,
            waiting: VecDeque::new(),
        }
    }

    fn give(&mut self, to: Claimant, cx: &mut SagaCtx) -> Result {
        let before = cx.instance().map_or(0, |instance| instance.version);
        let reserved = Reserved {
            resource: self.resource.clone(),
            // Versions never restart, so neither do fences.
            fence: u64::try_from(before).unwrap_or_default() + 1,
        };
        to.tell(cx, &reserved)?;
        self.holder = Some(to);
        Ok(())
    }

    fn refuse(&self, asking: &Claimant, refusal: Refusal, cx: &mut SagaCtx) -> Result {
        let refused = NotReserved {
            resource: self.resource.clone(),
            refusal,
            holder: self.holder.as_ref().map(Claimant::who),
        };
        asking.tell(cx, &refused)
    }

    /// Takes the lock from whoever has it.
    fn take_away(&mut self, taker: Option<&Claimant>, cx: &mut SagaCtx) -> Result {
        let Some(holder) = self.holder.take() else {
            return Ok(());
        };
        let lost = ReservationLost {
            resource: self.resource.clone(),
            taker: taker.map(Claimant::who),
        };
        holder.tell(cx, &lost)
    }

    /// Gives a lock that nobody has to the next one; where there is none, it is over.
    fn go_on(&mut self, cx: &mut SagaCtx) -> Result {
        if self.holder.is_some() {
            return Ok(());
        }
        let Some(next) = self.waiting.pop_front() else {
            cx.complete();
            return Ok(());
        };
        cx.effects.disarm(next.reserve.to_string());
        self.give(next, cx)
    }
}

impl Saga for Lock {
    type Key = String;
    type State = ();
}

impl NamedSaga for Lock {
    const NAME: &'static str = KIND;
}

impl Starts<Reserve> for Lock {
    fn start(message: &Reserve) -> Self {
        Self::free(message.resource())
    }
}

impl Handles<Reserve> for Lock {
    async fn handle(&mut self, message: Reserve, cx: &mut SagaCtx) -> Result {
        let asking = Claimant::of(cx)?;
        let Some(holder) = &self.holder else {
            return self.give(asking, cx);
        };
        if holder.is_same_instance(&asking) {
            return self.refuse(&asking, Refusal::HeldByItself, cx);
        }
        match message.policy {
            Policy::Refuse => self.refuse(&asking, Refusal::Held, cx),
            Policy::TakeOver => {
                self.take_away(Some(&asking), cx)?;
                self.give(asking, cx)
            }
            Policy::Wait(_) if self.waiting.len() >= WAITING_MAX => {
                self.refuse(&asking, Refusal::TooManyWait, cx)
            }
            Policy::Wait(patience) => {
                let over = PatienceOver {
                    resource: self.resource.clone(),
                    reserve: asking.reserve,
                };
                let name = asking.reserve.to_string();
                cx.effects.arm(name, patience, &over)?;
                self.waiting.push_back(asking);
                Ok(())
            }
        }
    }
}

// What comes after the lock was free again finds a tombstone: it changes nothing, which is no
// dead letter.
impl Starts<Release> for Lock {
    fn start(message: &Release) -> Self {
        Self::free(&message.resource)
    }
}

impl Handles<Release> for Lock {
    async fn handle(&mut self, message: Release, cx: &mut SagaCtx) -> Result {
        let gone: Vec<_> = self
            .waiting
            .iter()
            .filter(|one| one.is_meant(&message))
            .map(|one| one.reserve.to_string())
            .collect();
        for name in gone {
            cx.effects.disarm(name);
        }
        self.waiting.retain(|one| !one.is_meant(&message));
        if self
            .holder
            .as_ref()
            .is_some_and(|one| one.is_meant(&message))
        {
            self.holder = None;
        }
        self.go_on(cx)
    }
}

impl Starts<BreakLock> for Lock {
    fn start(message: &BreakLock) -> Self {
        Self::free(&message.resource)
    }
}

impl Handles<BreakLock> for Lock {
    async fn handle(&mut self, _: BreakLock, cx: &mut SagaCtx) -> Result {
        self.take_away(None, cx)?;
        self.go_on(cx)
    }
}

impl Starts<PatienceOver> for Lock {
    fn start(message: &PatienceOver) -> Self {
        Self::free(&message.resource)
    }
}

impl Handles<PatienceOver> for Lock {
    async fn handle(&mut self, message: PatienceOver, cx: &mut SagaCtx) -> Result {
        let mut waiting = self.waiting.iter();
        let at = waiting.position(|one| one.reserve == message.reserve);
        if let Some(asking) = at.and_then(|at| self.waiting.remove(at)) {
            self.refuse(&asking, Refusal::TimedOut, cx)?;
        }
        self.go_on(cx)
    }
}

/// The saga that keeps all locks of a database.
pub(crate) fn keeper() -> HandlerSaga<Lock> {
    saga::<Lock>()
        .starts_with::<Reserve>()
        .starts_with::<Release>()
        .starts_with::<BreakLock>()
        .starts_with::<PatienceOver>()
}
