//! What a saga and the keeper of a lock say to each other.

use std::time::Duration;

use sagabus_core::{Command, Kind, Message};
use serde::{Deserialize, Serialize};

/// How long a saga waits for a lock that somebody has, unless it says otherwise: longer than a
/// healthy process takes with one, short enough that somebody still cares.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Asks for a business key, until the saga that asks ends: given to `.reserve(..)` of a machine or
/// of a saga's context.
///
/// One of three answers comes: [`Reserved`], [`NotReserved`], or `RequestFailed` where the question
/// became a dead letter. Later [`ReservationLost`] may come.
///
/// ```
/// use sagabus_core::DurationExt;
/// use sagabus_saga::Reserve;
///
/// let seat = Reserve::key("seat", "12A").wait_for(30.secs());
/// assert_eq!(seat.resource(), "seat/12A");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    resource: String,
    pub(super) policy: Policy,
}

/// What is done where somebody else has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Policy {
    Wait(Duration),
    Refuse,
    TakeOver,
}

impl Reserve {
    /// Names the key, within a space that tells kinds of keys apart. Whoever names the same two
    /// means the same lock, whatever saga it is. Waits for up to 5 min where somebody has it.
    pub fn key(space: &str, key: impl ToString) -> Self {
        Self {
            resource: format!("{space}/{}", key.to_string()),
            policy: Policy::Wait(PATIENCE),
        }
    }

    /// Waits for up to `patience`, behind those who came before.
    #[must_use]
    pub fn wait_for(mut self, patience: Duration) -> Self {
        self.policy = Policy::Wait(patience);
        self
    }

    /// Is refused where somebody has it.
    #[must_use]
    pub fn or_refuse(mut self) -> Self {
        self.policy = Policy::Refuse;
        self
    }

    /// Takes it from whoever has it, who is told; those who wait go on waiting.
    #[must_use]
    pub fn take_over(mut self) -> Self {
        self.policy = Policy::TakeOver;
        self
    }

    /// Returns the lock's name: space, slash, key.
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

/// Tells a saga that it has the lock, until it gives it back or ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The lock's name.
    pub resource: String,
    /// Grows with every time that the lock is given to somebody: what is outside can refuse who
    /// comes with an older one.
    pub fence: u64,
}

/// Tells a saga that it does not get the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReserved {
    /// The lock's name.
    pub resource: String,
    /// Why.
    pub refusal: Refusal,
    /// Who has it: kind and key of the instance.
    pub holder: Option<(String, String)>,
}

/// Why a saga does not get a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Somebody has it, and the saga did not want to wait.
    Held,
    /// The instance that asks has it already, under another name: waiting for itself, it would wait
    /// for ever.
    HeldByItself,
    /// Its patience is over.
    TimedOut,
    /// Too many wait.
    TooManyWait,
}

/// Tells a saga that it has the lock no more: another one took it over, or an operator broke it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationLost {
    /// The lock's name.
    pub resource: String,
    /// Who took it: kind and key of the instance; `None` where an operator broke it.
    pub taker: Option<(String, String)>,
}

/// Gives a lock back, or stops waiting for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) resource: String,
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) generation: u64,
}

/// Reminds the keeper of somebody who does not want to wait any longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PatienceOver {
    pub(super) resource: String,
    pub(super) reserve: sagabus_core::MessageId,
}

/// Takes a lock from whoever has it, for an operator: the next one who waits gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakLock {
    /// The lock's name.
    pub resource: String,
}

/// Names the messages that are found by their lock.
macro_rules! about_a_lock {
    ($($name:ident $kind:ident $type:literal,)*) => {
        $(
            impl Message for $name {
                const TYPE: &'static str = $type;
                const KIND: Kind = Kind::$kind;

                // In line with all that is said about the lock: what gives it back never comes
                // before what asked for it.
                fn message_key(&self) -> Option<String> {
                    Some(self.resource.clone())
                }
            }

            impl crate::Correlate<super::Lock> for $name {
                fn key(&self) -> String {
                    self.resource.clone()
                }
            }
        )*
    };
}

about_a_lock! {
    Reserve Command "sagabus.lock.reserve",
    Release Command "sagabus.lock.release",
    BreakLock Command "sagabus.lock.break",
    PatienceOver Reply "sagabus.lock.patience-over",
}

impl Command for Reserve {}
impl Command for Release {}
impl Command for BreakLock {}

impl Message for Reserved {
    const TYPE: &'static str = "sagabus.lock.reserved";
}

impl Message for NotReserved {
    const TYPE: &'static str = "sagabus.lock.not-reserved";
}

impl Message for ReservationLost {
    const TYPE: &'static str = "sagabus.lock.lost";
}
