//! The steps of a transition: what it does, in order.

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use sagabus_core::handler::Need;
use sagabus_core::{Command, Ctx, Event, Extract, HandlerError, Message, Result};

use super::definition::{Act, Condition, Erased, Performance, Step};
use super::when::{Open, When};
use crate::effects::{Effects, outgoing};
use crate::lock::Reserve;
use crate::saga::Saga;

/// Steps without an ending: what happens when a state is entered or left, or in one case only.
#[must_use = "return it from the closure"]
pub struct Steps<S: Saga, M> {
    pub(super) performance: Performance<S>,
    message: PhantomData<fn() -> M>,
}

impl<S: Saga, M> Steps<S, M> {
    pub(super) fn new() -> Self {
        Self {
            performance: Performance::default(),
            message: PhantomData,
        }
    }

    fn performance(&mut self) -> &mut Performance<S> {
        &mut self.performance
    }
}

impl<S: Saga, M> std::fmt::Debug for Steps<S, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps")
            .field("steps", &self.performance.steps)
            .finish_non_exhaustive()
    }
}

/// Gives a type the steps.
macro_rules! impl_steps {
    ([$($generics:tt)*] $type:ty) => {
        impl<S: Saga, M: Send + Sync + 'static, $($generics)*> $type {
            /// Changes the instance's data.
            pub fn then(self, change: impl Fn(&mut S, &M) + Send + Sync + 'static) -> Self {
                self.act(step("then", "changes data"), move |data, message, _| {
                    change(data, message);
                    Ok(())
                })
            }

            /// Sends a command to its owner.
            pub fn send<C: Command>(
                self,
                make: impl Fn(&S, &M) -> C + Send + Sync + 'static,
            ) -> Self {
                self.act(sending("send", C::TYPE), move |data, message, effects| {
                    effects.send(outgoing(&make(data, message))?);
                    Ok(())
                })
            }

            /// Sends a command to its owner for each item: one for each passenger, none where the
            /// list is empty.
            pub fn send_each<C: Command>(
                self,
                make: impl Fn(&S, &M) -> Vec<C> + Send + Sync + 'static,
            ) -> Self {
                self.act(sending("send", C::TYPE), move |data, message, effects| {
                    for one in make(data, message) {
                        effects.send(outgoing(&one)?);
                    }
                    Ok(())
                })
            }

            /// Publishes an event to everyone who subscribed.
            pub fn publish<E: Event>(
                self,
                make: impl Fn(&S, &M) -> E + Send + Sync + 'static,
            ) -> Self {
                self.act(sending("publish", E::TYPE), move |data, message, effects| {
                    effects.send(outgoing(&make(data, message))?);
                    Ok(())
                })
            }

            /// Answers whoever sent the message.
            pub fn reply<R: Message>(
                self,
                make: impl Fn(&S, &M) -> R + Send + Sync + 'static,
            ) -> Self {
                self.act(sending("reply", R::TYPE), move |data, message, effects| {
                    effects.reply(outgoing(&make(data, message))?);
                    Ok(())
                })
            }

            /// Answers the request that started the instance, however long ago.
            pub fn respond<R: Message>(
                self,
                make: impl Fn(&S, &M) -> R + Send + Sync + 'static,
            ) -> Self {
                self.act(sending("respond", R::TYPE), move |data, message, effects| {
                    effects.respond(&make(data, message))
                })
            }

            /// Arms a timer: the message comes back to this machine when `after` has passed. Arming
            /// a name again replaces it.
            pub fn schedule<T: Message + $crate::Correlate<S>>(
                self,
                name: &'static str,
                after: Duration,
                make: impl Fn(&S, &M) -> T + Send + Sync + 'static,
            ) -> Self {
                self.schedule_after(name, move |_, _| after, make)
            }

            /// Arms a timer as [`schedule`](Self::schedule) does; how long it runs, the data says.
            pub fn schedule_after<T: Message + $crate::Correlate<S>>(
                self,
                name: &'static str,
                after: impl Fn(&S, &M) -> Duration + Send + Sync + 'static,
                make: impl Fn(&S, &M) -> T + Send + Sync + 'static,
            ) -> Self {
                let mut step = step("schedule", name);
                step.brings = Some(T::TYPE);
                self.act(step, move |data, message, effects| {
                    effects.arm(name, after(data, message), &make(data, message))
                })
            }

            /// Cancels a timer, or stops waiting for the answer to a question. A timer that has
            /// fired already is a recorded no-op when it arrives.
            pub fn unschedule(self, name: &'static str) -> Self {
                self.act(step("unschedule", name), move |_, _, effects| {
                    effects.disarm(name);
                    Ok(())
                })
            }

            /// Asks a question: sends a command whose answer comes back to this very instance and
            /// needs no key. One of three comes, each handled by a branch: the answer
            /// (`Order::when_answered`), the news that the command became a dead letter
            /// (`Order::when_failed`), or that time is up (`Order::when_timed_out`). What comes
            /// later than that has no effect.
            pub fn ask<C: Command>(
                self,
                name: &'static str,
                timeout: Duration,
                make: impl Fn(&S, &M) -> C + Send + Sync + 'static,
            ) -> Self {
                let mut step = step("ask", name);
                step.brings = Some(C::TYPE);
                self.act(step, move |data, message, effects| {
                    effects.ask(name, timeout, &make(data, message))
                })
            }

            /// Reserves a business key until it is given back or the instance ends; others wait, are
            /// refused or take it over, as they say. One of three branches follows:
            /// `when_answered::<Reserved>(name)`, `when_answered::<NotReserved>(name)` or
            /// `when_failed(name)`; and `when_answered::<ReservationLost>(name)`, where the lock is
            /// taken from it. An endpoint of this database keeps the locks: `.locks()`.
            ///
            /// Reserving again under a name gives back what was had by it.
            pub fn reserve(
                self,
                name: &'static str,
                make: impl Fn(&S, &M) -> Reserve + Send + Sync + 'static,
            ) -> Self {
                let mut step = step("reserve", name);
                step.brings = Some(Reserve::TYPE);
                self.act(step, move |data, message, effects| {
                    effects.reserve(name, make(data, message));
                    Ok(())
                })
            }

            /// Gives back what was reserved under a name, or stops waiting for it. The end of the
            /// instance does it for all.
            pub fn release(self, name: &'static str) -> Self {
                self.act(step("release", name), move |_, _, effects| {
                    effects.release(name);
                    Ok(())
                })
            }

            /// Runs an async function of your own inside the same unit of work: it takes the data
            /// and the message by value, then extractors as a handler does, and returns the data:
            /// `async fn(Order, PaymentTaken, Tx<Postgres>) -> Result<Order>`.
            ///
            /// An error drops everything that the transition did, and the message is tried again.
            pub fn run<F, Args>(mut self, function: F) -> Self
            where
                F: RunStep<S, M, Args>,
                M: Clone,
            {
                let performance = self.performance();
                let name = type_name::<F>().rsplit("::").next().unwrap_or_default();
                performance.steps.push(step("run", name));
                performance.needs.extend(F::needs());
                performance.acts.push(Act::Run(Box::new(move |data, message, cx| {
                    function.call(data, typed::<M>(message).clone(), cx)
                })));
                self
            }

            /// Does some steps in one case only.
            pub fn only_if(
                mut self,
                condition: impl Fn(&S, &M) -> bool + Send + Sync + 'static,
                steps: impl FnOnce(Steps<S, M>) -> Steps<S, M>,
            ) -> Self {
                let Performance { acts, steps, needs } = steps(Steps::new()).performance;
                let performance = self.performance();
                performance.needs.extend(needs);
                performance.steps.extend(steps.into_iter().map(|step| Step {
                    is_in_one_case: true,
                    ..step
                }));
                performance.acts.push(Act::If(erased(condition), acts));
                self
            }

            fn act<A>(mut self, step: Step, act: A) -> Self
            where
                A: Fn(&mut S, &M, &mut Effects) -> Result<(), HandlerError>
                    + Send
                    + Sync
                    + 'static,
            {
                let performance = self.performance();
                performance.steps.push(step);
                performance.acts.push(Act::Do(Box::new(move |data, message, effects| {
                    act(data, typed(message), effects)
                })));
                self
            }
        }
    };
}

impl_steps!([] Steps<S, M>);
impl_steps!([Start] When<S, M, Start, Open>);

fn sending(verb: &'static str, message_type: &'static str) -> Step {
    Step {
        brings: Some(message_type),
        ..step(verb, message_type)
    }
}

fn step(verb: &'static str, what: &str) -> Step {
    Step {
        verb,
        what: what.to_owned(),
        brings: None,
        is_in_one_case: false,
    }
}

/// Hides the type of a condition's message.
pub(super) fn erased<S, M: 'static>(
    condition: impl Fn(&S, &M) -> bool + Send + Sync + 'static,
) -> Condition<S> {
    Box::new(move |data, message| condition(data, typed(message)))
}

pub(super) fn typed<M: 'static>(message: &Erased) -> &M {
    message
        .downcast_ref::<M>()
        .expect("an entry is given messages of its own type only")
}

/// An async function that a transition runs: takes the data, the message and extractors, returns
/// the data.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be run by a transition",
    label = "expected `async fn(Data, Message, extractors..) -> Result<Data>`",
    note = "it takes the saga's data and the message by value, then up to six extractors: \
            `State<T>`, `Ctx`, `IdempotencyKey`, `Tx<Postgres>` or `Tx<Sqlite>`",
    note = "it returns the data: `Result<Order>`; its future is `Send`"
)]
pub trait RunStep<S, M, Args>: Send + Sync + 'static {
    /// Lists what its extractors need of the host.
    fn needs() -> Vec<Need>;

    /// Runs it.
    fn call(&self, data: S, message: M, cx: &Ctx) -> BoxFuture<'static, Result<S>>;
}

/// Implements `RunStep` for functions with the given extractors.
macro_rules! impl_run_step {
    ($($extract:ident),*) => {
        #[diagnostic::do_not_recommend]
        impl<F, Fut, S, M, $($extract,)*> RunStep<S, M, (M, $($extract,)*)> for F
        where
            F: Fn(S, M, $($extract),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<S>> + Send + 'static,
            S: Send + 'static,
            $($extract: Extract,)*
        {
            fn needs() -> Vec<Need> {
                let mut needs = Vec::new();
                $(needs.extend($extract::needs());)*
                let _ = &mut needs; // A function without extractors needs nothing.
                needs
            }

            #[allow(non_snake_case, unused_variables, reason = "one name serves as type and binding")]
            fn call(&self, data: S, message: M, cx: &Ctx) -> BoxFuture<'static, Result<S>> {
                $(let $extract = match $extract::extract(cx) {
                    Ok(value) => value,
                    Err(error) => return ready(Err(error)).boxed(),
                };)*
                self(data, message, $($extract),*).boxed()
            }
        }
    };
}

impl_run_step!();
impl_run_step!(T1);
impl_run_step!(T1, T2);
impl_run_step!(T1, T2, T3);
impl_run_step!(T1, T2, T3, T4);
impl_run_step!(T1, T2, T3, T4, T5);
impl_run_step!(T1, T2, T3, T4, T5, T6);
