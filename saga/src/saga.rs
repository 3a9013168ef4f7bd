//! What an instance is: serialisable data with a key and, for machines, a named state.

use std::fmt::Debug;
use std::hash::Hash;

use sagabus_core::request::RequestFailed;
use sagabus_core::{HandlerError, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::correlate::{Correlate, CorrelateByLabel};
use crate::machine::{AllOf, Closed, Ending, NotStarted, Open, Trigger, When};
use crate::message::{MessageFacts, RequestTimedOut};

/// The data of one business process, kept between messages.
///
/// ```
/// use sagabus_saga::{Saga, SagaState};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Order { id: u64, cents: i64 }
///
/// #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
/// enum Stage { AwaitingPayment, Shipping }
///
/// impl SagaState for Stage {
///     const ALL: &'static [Self] = &[Self::AwaitingPayment, Self::Shipping];
///     fn name(self) -> &'static str {
///         match self {
///             Self::AwaitingPayment => "awaiting-payment",
///             Self::Shipping => "shipping",
///         }
///     }
/// }
///
/// impl Saga for Order {
///     type Key = u64;
///     type State = Stage;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga's data",
    label = "not a saga",
    note = "derive `Saga` for it, with its key and, for a machine, its states: \
            `#[saga(key = Uuid, state = Stage)]`"
)]
pub trait Saga: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The business key that finds an instance, for example an order's number.
    type Key: ToString;

    /// The named states of a machine; `()` for a saga without.
    type State: SagaState;

    /// The version of the data's shape, which counts up by one. Stored data of a higher version is not touched: its
    /// message waits as a dead letter for the newer release.
    const SCHEMA_VERSION: i32 = 1;

    /// Brings stored data of version `from` to the shape of the version after it. Called for each
    /// version from the stored one up to the one before [`SCHEMA_VERSION`](Self::SCHEMA_VERSION).
    ///
    /// # Errors
    /// When the data is of no known shape: the message becomes a dead letter with the reason
    /// `state_undecodable`, and the instance stays as it is.
    fn upcast(from: i32, data: serde_json::Value) -> Result<serde_json::Value, HandlerError> {
        let _ = from; // Without changes of its own, only fields with defaults were added.
        Ok(data)
    }

    /// Returns the labels of an instance: other names by which messages find it, each unique among
    /// the running instances of the saga. Called after every message; what changed is written.
    ///
    /// A name of the wrong value finds nothing: prefer the names and values that messages carry.
    fn labels(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Starts the description of what happens when a message comes:
    /// `Order::when::<OrderPlaced>()`.
    #[track_caller]
    fn when<M>() -> When<Self, M, NotStarted, Open>
    where
        Self: Sized,
        M: Message + Correlate<Self>,
    {
        When::new(Trigger::by_key::<Self, M>())
    }

    /// As [`when`](Self::when), for messages of which `condition` is true. Branches are tried in the
    /// order in which they are declared.
    #[track_caller]
    fn when_if<M>(
        condition: impl Fn(&Self, &M) -> bool + Send + Sync + 'static,
    ) -> When<Self, M, NotStarted, Open>
    where
        Self: Sized,
        M: Message + Correlate<Self>,
    {
        When::new(Trigger::by_key::<Self, M>()).given(condition)
    }

    /// As [`when`](Self::when), for messages that no [`when_if`](Self::when_if) before it took.
    #[track_caller]
    fn when_else<M>() -> When<Self, M, NotStarted, Open>
    where
        Self: Sized,
        M: Message + Correlate<Self>,
    {
        When::new(Trigger::by_key::<Self, M>())
    }

    /// As [`when`](Self::when), for a message that finds its instance by a label.
    #[track_caller]
    fn when_by_label<M>() -> When<Self, M, NotStarted, Open>
    where
        Self: Sized,
        M: Message + CorrelateByLabel<Self>,
    {
        When::new(Trigger::Message(MessageFacts::by_label::<Self, M>()))
    }

    /// Starts the description of what happens when all of several messages have come, in whatever
    /// order: `Order::when_all::<(Paid, Packed)>("ready")`. The name is stored.
    #[track_caller]
    fn when_all<Parts>(name: &'static str) -> When<Self, (), NotStarted, Open>
    where
        Self: Sized,
        Parts: AllOf<Self>,
    {
        When::new(Trigger::All(name, Parts::message_types().0))
    }

    /// Starts the description of what happens when a question of this instance is answered. The
    /// answer needs no key.
    #[track_caller]
    fn when_answered<M: Message>(request: &'static str) -> When<Self, M, NotStarted, Open>
    where
        Self: Sized,
    {
        When::new(Trigger::Answer(request, MessageFacts::by_request::<M>()))
    }

    /// Starts the description of what happens when a question became a dead letter.
    #[track_caller]
    fn when_failed(request: &'static str) -> When<Self, RequestFailed, NotStarted, Open>
    where
        Self: Sized,
    {
        When::new(Trigger::Failed(request))
    }

    /// Starts the description of what happens when a question was not answered in time.
    #[track_caller]
    fn when_timed_out(request: &'static str) -> When<Self, RequestTimedOut, NotStarted, Open>
    where
        Self: Sized,
    {
        When::new(Trigger::TimedOut(request))
    }

    /// Describes a message that is accepted without an effect.
    #[track_caller]
    fn ignore<M>() -> When<Self, M, NotStarted, Closed>
    where
        Self: Sized,
        M: Message + Correlate<Self>,
    {
        When::new(Trigger::by_key::<Self, M>()).end(Ending::Ignore)
    }

    /// Describes a message that is kept until the state changes, and then handled again.
    #[track_caller]
    fn defer<M>() -> When<Self, M, NotStarted, Closed>
    where
        Self: Sized,
        M: Message + Correlate<Self>,
    {
        When::new(Trigger::by_key::<Self, M>()).end(Ending::Defer)
    }
}

/// The states of a machine, by stable name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of named states",
    label = "not an enum of states",
    note = "derive `State` for the enum; a variant without fields is one state"
)]
pub trait SagaState: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// Every state, in the order of the enum.
    const ALL: &'static [Self];

    /// Returns the stored name, for example `awaiting-payment`.
    fn name(self) -> &'static str;

    /// Returns the state that this one is a part of: what the whole takes, the part takes, too.
    fn within(self) -> Option<Self> {
        None
    }

    /// Returns other names under which it may be stored: those that it had before it was renamed.
    fn aliases(self) -> &'static [&'static str] {
        &[]
    }

    /// Finds a state by its stored name, today's or a former one.
    fn named(name: &str) -> Option<Self> {
        let all = || Self::ALL.iter().copied();
        let today = all().find(|state| state.name() == name);
        today.or_else(|| all().find(|state| state.aliases().contains(&name)))
    }
}

impl SagaState for () {
    const ALL: &'static [Self] = &[()];

    fn name(self) -> &'static str {
        "active"
    }
}
