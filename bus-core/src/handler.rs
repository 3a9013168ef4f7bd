//! Handlers: plain async functions. The first argument is the subscription, the others are
//! extractors, the return value is what to send.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::codec;
use crate::context::Ctx;
use crate::envelope::Envelope;
use crate::error::{CodecError, HandlerError};
use crate::id::{InstanceId, MessageId};
use crate::message::{Message, aliases_of};
use crate::store::{Store, Subscription};
use crate::unit_of_work::LabelId;

/// Stateless code for one message type: an async function whose first argument is the message.
///
/// The other arguments are [extractors](Extract), the return value is [what to
/// send](IntoOutgoing). Implemented for functions and closures of up to eight extractors.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message handler",
    label = "expected `async fn(Message, extractors..) -> what to send`",
    note = "the first argument is a message; the others are extractors: `State<T>`, `Ctx`, \
            `IdempotencyKey`, `Tx<Postgres>` or `Tx<Sqlite>`",
    note = "the return value is `()`, a message, an `Option`, `Vec` or tuple of messages, or a \
            `Result` of these",
    note = "the future is `Send`: nothing that must stay on its thread, such as an `Rc` or the \
            guard of a lock, lives across an `.await`",
    note = "put `#[debug_handler]` on the function to see which part is wrong"
)]
pub trait Handler<Args>: Clone + Send + Sync + 'static {
    /// What it subscribes to.
    type Message: Message;

    /// Lists what its extractors need of the host.
    fn needs() -> Vec<Need>;

    /// Runs it. What it returned is staged in `cx`.
    fn call(
        &self,
        message: Self::Message,
        cx: Ctx,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Implements `Handler` for functions with the given extractors.
macro_rules! impl_handler {
    ($($extract:ident),*) => {
        #[diagnostic::do_not_recommend]
        impl<F, Fut, M, $($extract,)*> Handler<(M, $($extract,)*)> for F
        where
            F: Fn(M, $($extract),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: IntoOutgoing,
            M: Message,
            $($extract: Extract,)*
        {
            type Message = M;

            fn needs() -> Vec<Need> {
                let mut needs = Vec::new();
                $(needs.extend($extract::needs());)*
                let _ = &mut needs; // A handler without extractors needs nothing.
                needs
            }

            async fn call(&self, message: M, cx: Ctx) -> Result<(), HandlerError> {
                let run = self(message, $($extract::extract(&cx)?),*);
                run.await.stage(&cx)
            }
        }
    };
}

impl_handler!();
impl_handler!(T1);
impl_handler!(T1, T2);
impl_handler!(T1, T2, T3);
impl_handler!(T1, T2, T3, T4);
impl_handler!(T1, T2, T3, T4, T5);
impl_handler!(T1, T2, T3, T4, T5, T6);
impl_handler!(T1, T2, T3, T4, T5, T6, T7);
impl_handler!(T1, T2, T3, T4, T5, T6, T7, T8);

/// An argument that a handler takes beside its message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "take `State<T>`, `Ctx`, `IdempotencyKey`, `Tx<Postgres>` or `Tx<Sqlite>`; the message \
            comes first"
)]
pub trait Extract: Sized + Send {
    /// Lists what it needs of the host, so that the host can refuse to be built without it.
    fn needs() -> Vec<Need> {
        Vec::new()
    }

    /// Takes the value out of the context.
    ///
    /// # Errors
    /// Whatever makes the value impossible here; the message is tried again.
    fn extract(cx: &Ctx) -> Result<Self, HandlerError>;
}

impl Extract for Ctx {
    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        Ok(cx.clone())
    }
}

/// A value that was given to the host with `.state(..)`, shared by all handlers.
///
/// Writes through a pool held in a state are *not* part of the unit of work: use `Tx` for those.
pub struct State<T>(pub Arc<T>);

impl<T> std::fmt::Debug for State<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State<{}>", type_name::<T>())
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + Sync + 'static> Extract for State<T> {
    fn needs() -> Vec<Need> {
        vec![Need {
            what: format!("a state of type `{}`", type_name::<T>()),
            remedy: "give it to the host with `.state(..)`".to_owned(),
            is_met: |given| given.states.get::<T>().is_some(),
        }]
    }

    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        cx.state::<T>().map(State)
    }
}

/// A key for calls to the outside that is the same for every try of this message at this endpoint.
///
/// Give it to a payment gateway, so that a second try is recognised as the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Returns the key: the endpoint's name, a slash, the message's identity.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Extract for IdempotencyKey {
    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        Ok(Self(format!("{}/{}", cx.endpoint(), cx.message_id())))
    }
}

impl Extract for MessageId {
    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        Ok(cx.message_id())
    }
}

/// Something that a handler needs of its host.
#[derive(Clone, Debug)]
pub struct Need {
    /// What, for the error message: ``a state of type `Gateway` ``.
    pub what: String,
    /// How to give it.
    pub remedy: String,
    /// Whether the host has it.
    pub is_met: fn(&Given<'_>) -> bool,
}

/// What a host has to give.
#[derive(Debug)]
pub struct Given<'a> {
    /// The shared values.
    pub states: &'a States,
    /// The store.
    pub store: &'a dyn Store,
}

/// The shared values of a host, one per type.
#[derive(Clone, Default)]
pub struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Adds a value; a second one of the same type replaces the first.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Returns the value of this type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}

/// What a handler may return: nothing, messages to send, or an error.
///
/// A command is sent to its owner, an event is published, a plain message answers the requester.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned by a handler",
    label = "neither nothing nor messages",
    note = "return `()`, a message, an `Option`, `Vec` or tuple of messages, or a `Result` of these"
)]
pub trait IntoOutgoing {
    /// Stages what is to be sent.
    ///
    /// # Errors
    /// The handler's own error, or that of a message which cannot be sent.
    fn stage(self, cx: &Ctx) -> Result<(), HandlerError>;
}

impl IntoOutgoing for () {
    fn stage(self, _: &Ctx) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl<M: Message> IntoOutgoing for M {
    fn stage(self, cx: &Ctx) -> Result<(), HandlerError> {
        cx.stage(&self).map(drop)
    }
}

impl<T: IntoOutgoing> IntoOutgoing for Option<T> {
    fn stage(self, cx: &Ctx) -> Result<(), HandlerError> {
        self.map_or(Ok(()), |one| one.stage(cx))
    }
}

impl<T: IntoOutgoing> IntoOutgoing for Vec<T> {
    fn stage(self, cx: &Ctx) -> Result<(), HandlerError> {
        self.into_iter().try_for_each(|one| one.stage(cx))
    }
}

impl<T: IntoOutgoing, E: Into<HandlerError>> IntoOutgoing for Result<T, E> {
    fn stage(self, cx: &Ctx) -> Result<(), HandlerError> {
        self.map_err(Into::into)?.stage(cx)
    }
}

/// Implements `IntoOutgoing` for a tuple.
macro_rules! impl_tuple {
    ($($part:ident),*) => {
        impl<$($part: IntoOutgoing),*> IntoOutgoing for ($($part,)*) {
            fn stage(self, cx: &Ctx) -> Result<(), HandlerError> {
                #[expect(non_snake_case, reason = "one name serves as type and as binding")]
                let ($($part,)*) = self;
                $($part.stage(cx)?;)*
                Ok(())
            }
        }
    };
}

impl_tuple!(A, B);
impl_tuple!(A, B, C);
impl_tuple!(A, B, C, D);

/// A handler, a saga's or a machine's reaction, as the engine sees it: bytes in, staged effects
/// out.
pub trait Subscriber: Send + Sync {
    /// The message type that it takes, and its kind.
    fn subscription(&self) -> Subscription;

    /// Other names under which its messages may come.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// Its name for people, for example the function's path.
    fn name(&self) -> &str;

    /// The highest version of the body that it understands.
    fn version(&self) -> u32;

    /// What it needs of the host.
    fn needs(&self) -> Vec<Need>;

    /// Decodes a body and says which instance or key it is for.
    ///
    /// # Errors
    /// When the bytes are not a body of this type: the message becomes a dead letter.
    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError>;

    /// Says whether it has an answer to its own failure: then, where the message would be given up,
    /// it is handled once more, with [`Ctx::given_up`] saying why.
    fn compensates(&self) -> bool {
        false
    }

    /// Says whether messages that wait for one instance may be merged into one unit: handling has no
    /// effect but what it stages, so that it may be done again.
    fn merges(&self) -> bool {
        false
    }

    /// Says whether its instances have a state of this name; `None` where it has no states.
    fn has_state(&self, _name: &str) -> Option<bool> {
        None
    }

    /// Moves the instance in `cx` to the state of this name, because an operator says so, with what
    /// is done on the way from one state to another.
    fn move_to<'a>(
        &'a self,
        state: &'a str,
        _cx: &'a Ctx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        let error = format!("`{}` has no state `{state}`", self.name());
        Box::pin(std::future::ready(Err(HandlerError::new(error).terminal())))
    }

    /// Ends the instance in `cx` because an operator says so, with what is done on the way to the
    /// end.
    fn cancel<'a>(&'a self, _cx: &'a Ctx) -> BoxFuture<'a, Result<(), HandlerError>> {
        let error = format!("`{}` has no instances", self.name());
        Box::pin(std::future::ready(Err(HandlerError::new(error).terminal())))
    }

    /// The version of the data of its instances; `None` where it has none.
    fn schema_version(&self) -> Option<i32> {
        None
    }

    /// Stages the instance in `cx` as it is, in the shape of this release, because an operator says
    /// so.
    ///
    /// # Errors
    /// When its data cannot be read.
    fn rewrite(&self, _cx: &Ctx) -> Result<(), HandlerError> {
        let error = format!("`{}` has no instances", self.name());
        Err(HandlerError::new(error).terminal())
    }

    /// Handles a decoded message. What is wanted is staged in `cx`.
    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// A message that has been decoded, and where it belongs.
pub struct Decoded {
    /// The typed message.
    pub message: Box<dyn Any + Send + Sync>,
    /// The instance that it is for.
    pub instance: Option<InstanceId>,
    /// Or: the label of the instance that it is for.
    pub label: Option<LabelId>,
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Wraps a handler function for the engine.
pub(crate) struct HandlerSubscriber<H, Args> {
    handler: H,
    args: PhantomData<fn() -> Args>,
}

impl<H, Args> HandlerSubscriber<H, Args> {
    /// Wraps it.
    pub(crate) fn new(handler: H) -> Self {
        Self {
            handler,
            args: PhantomData,
        }
    }
}

impl<H: Handler<Args>, Args: 'static> Subscriber for HandlerSubscriber<H, Args> {
    fn subscription(&self) -> Subscription {
        subscription_of::<H::Message>()
    }

    fn aliases(&self) -> &'static [&'static str] {
        aliases_of::<H::Message>()
    }

    fn name(&self) -> &str {
        type_name::<H>()
    }

    fn version(&self) -> u32 {
        H::Message::VERSION
    }

    fn needs(&self) -> Vec<Need> {
        H::needs()
    }

    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError> {
        let message = Box::new(codec::decode::<H::Message>(envelope)?);
        Ok(Decoded {
            message,
            instance: None,
            label: None,
        })
    }

    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        let message = downcast::<H::Message>(message);
        Box::pin(self.handler.call(message, cx.clone()))
    }
}

/// Returns the subscription that a message type makes.
pub fn subscription_of<M: Message>() -> Subscription {
    Subscription {
        message_type: M::TYPE.into(),
        kind: M::KIND,
    }
}

/// Takes a typed message out of its box.
///
/// # Panics
/// When the box holds another type, which would be a defect of the engine: a subscriber is only
/// ever given what its own `decode` made.
pub fn downcast<M: Message>(message: Box<dyn Any + Send + Sync>) -> M {
    *message
        .downcast::<M>()
        .expect("a subscriber is given what its own `decode` made")
}
