//! A machine at work: one message, one transition, one instance change.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use sagabus_core::envelope::{Due, Envelope, Outgoing, Timer};
use sagabus_core::error::{CodecError, HandlerError};
use sagabus_core::handler::{Decoded, Need, Subscriber};
use sagabus_core::store::{Instance, Subscription};
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Origin};
use sagabus_core::{Ctx, Destination, InstanceId, Message, MessageId, Reason, headers};

use super::definition::{Definition, Effects, Ending, MessageEntry, Transition};
use crate::correlate::Correlate;
use crate::saga::{Saga, SagaState};

/// One message type of a machine, as the engine sees it.
pub(crate) struct MachineSubscriber<S: Saga> {
    definition: Arc<Definition<S>>,
    index: usize,
}

/// The transition that answers a message, with the data and state that it starts from.
struct Chosen<'a, S: Saga> {
    data: S,
    /// `None` for a new instance.
    state: Option<S::State>,
    transition: &'a Transition<S>,
}

/// Decodes a message and finds its instance's key. `kind` is the machine's name.
pub(crate) fn decode<S: Saga, M: Message + Correlate<S>>(
    envelope: &Envelope,
    kind: &str,
) -> Result<Decoded, CodecError> {
    let message = M::decode(&envelope.body)?;
    let key = Correlate::<S>::key(&message).to_string();
    let instance = InstanceId {
        kind: kind.to_owned().into(),
        key,
    };
    Ok(Decoded {
        message: Box::new(message),
        instance: Some(instance),
    })
}

impl<S: Saga> MachineSubscriber<S> {
    pub(crate) fn new(definition: Arc<Definition<S>>, index: usize) -> Self {
        Self { definition, index }
    }

    fn entry(&self) -> &MessageEntry<S> {
        &self.definition.messages[self.index]
    }

    fn run(&self, message: &dyn Any, cx: &Ctx) -> Result<(), HandlerError> {
        let entry = self.entry();
        let Chosen {
            mut data,
            state,
            transition,
        } = self.choose(entry, message, cx.instance())?;
        let mut effects = Effects::default();
        for act in &transition.acts {
            act(&mut data, message, &mut effects)?;
        }
        let id = cx.instance_id().cloned();
        let id = id.ok_or_else(|| HandlerError::new("message has lost its key").terminal())?;
        self.stage(cx, id, &data, state, transition, effects)
    }

    /// Finds data, state and transition for a message; every other case is a decision with a
    /// reason.
    fn choose<'a>(
        &self,
        entry: &'a MessageEntry<S>,
        message: &dyn Any,
        instance: Option<&Instance>,
    ) -> Result<Chosen<'a, S>, HandlerError> {
        let name = &self.definition.name;
        let message_type = &entry.message.subscription.message_type;
        let running = instance.filter(|one| one.status == InstanceStatus::Running);
        let Some(instance_now) = running else {
            let Some(initial) = &entry.initial else {
                return Err(match instance {
                    Some(over) => {
                        let key = &over.id.key;
                        let error = format!("`{message_type}` came after {name} {key} was over");
                        HandlerError::dead(Reason::TooLate, error)
                    }
                    None => {
                        let error = format!("no {name} exists yet for this `{message_type}`");
                        HandlerError::retry_as(Reason::NoInstance, error)
                    }
                });
            };
            let init = initial.init.as_ref().ok_or_else(|| {
                HandlerError::new("transition cannot start an instance").terminal()
            })?;
            return Ok(Chosen {
                data: init(message),
                state: None,
                transition: initial,
            });
        };
        let (data, state) = self.read(instance_now)?;
        let transition = entry.by_state.get(&state).or(entry.in_any_state.as_ref());
        match transition {
            Some(transition) => Ok(Chosen {
                data,
                state: Some(state),
                transition,
            }),
            None => {
                let state = state.name();
                let error = format!("{name} takes no `{message_type}` in state `{state}`");
                Err(HandlerError::dead(Reason::EventNotAcceptedInState, error))
            }
        }
    }

    /// Reads stored data and state. What cannot be read is kept as it is.
    fn read(&self, instance: &Instance) -> Result<(S, S::State), HandlerError> {
        let dead = |error: String| HandlerError::dead(Reason::StateUndecodable, error);
        if instance.schema_version > S::SCHEMA_VERSION {
            return Err(dead(format!(
                "{} was stored with schema version {}, this release knows {}",
                instance.id,
                instance.schema_version,
                S::SCHEMA_VERSION
            )));
        }
        let name = instance.state.as_deref().unwrap_or_default();
        let state = S::State::named(name)
            .ok_or_else(|| dead(format!("{} is in unknown state {name:?}", instance.id)))?;
        let data = serde_json::from_slice(&instance.data)
            .map_err(|error| dead(format!("{} cannot be read: {error}", instance.id)))?;
        Ok((data, state))
    }

    fn stage(
        &self,
        cx: &Ctx,
        id: InstanceId,
        data: &S,
        state: Option<S::State>,
        transition: &Transition<S>,
        effects: Effects,
    ) -> Result<(), HandlerError> {
        let before = cx.instance();
        let is_new = state.is_none();
        let expected = before.map_or(0, |instance| instance.version);
        let mut timers = match before {
            Some(instance) if !is_new => instance.timers.clone(),
            _ => BTreeMap::new(),
        };
        if let Some(fired) = cx.timer() {
            timers.remove(&fired.name);
        }
        let Effects {
            outgoing,
            replies,
            armed,
            disarmed,
        } = effects;
        let mut removed: Vec<String> = Vec::new();
        for name in disarmed {
            if timers.remove(name).is_some() {
                removed.push(name.to_owned());
            }
        }
        let (status, next) = match transition.ending {
            Ending::To(next) => (InstanceStatus::Running, Some(next)),
            Ending::Stay => (InstanceStatus::Running, state),
            Ending::Finalize => (InstanceStatus::Completed, state),
        };
        if status == InstanceStatus::Completed {
            removed.extend(std::mem::take(&mut timers).into_keys());
        } else {
            arm(cx, &id, expected, armed, &mut timers, &mut removed)?;
        }
        for one in outgoing {
            cx.push(one)?;
        }
        for one in replies {
            cx.push_reply(one)?;
        }
        cx.note(state.map(|state| state.name().into()), None)?;
        let origin = match before {
            Some(instance) if !is_new => instance.origin.clone(),
            _ => Some(origin(cx)),
        };
        cx.change_instance(InstanceChange {
            id,
            expected,
            status,
            state: next.map(|next| next.name().into()),
            schema_version: S::SCHEMA_VERSION,
            data: serde_json::to_vec(data)
                .map(Bytes::from)
                .map_err(|error| HandlerError::from(error).terminal())?,
            timers,
            disarmed: removed,
            origin,
        })
    }
}

/// Sends the armed timers to this endpoint, each under the generation that the instance holds.
fn arm(
    cx: &Ctx,
    id: &InstanceId,
    expected: i64,
    armed: Vec<(&'static str, std::time::Duration, Outgoing)>,
    timers: &mut BTreeMap<String, u64>,
    removed: &mut Vec<String>,
) -> Result<(), HandlerError> {
    // Versions never restart, so neither do generations.
    let generation = u64::try_from(expected).unwrap_or(0) + 1;
    for (name, after, mut message) in armed {
        if timers.insert(name.to_owned(), generation).is_some() {
            removed.push(name.to_owned());
        }
        let text = generation.to_string();
        message.envelope.id = MessageId::derived(&[&id.kind, &id.key, name, &text]);
        message.envelope.headers.set(headers::TIMER, name);
        message
            .envelope
            .headers
            .set(headers::TIMER_GENERATION, text);
        message.destination = Destination::Endpoint(cx.endpoint().clone());
        message.due = Due::After(after);
        message.timer = Some(Timer {
            owner: id.clone(),
            name: name.to_owned(),
            generation,
        });
        cx.push(message)?;
    }
    Ok(())
}

fn origin(cx: &Ctx) -> Origin {
    Origin {
        reply_to: cx.headers().get(headers::REPLY_TO).map(str::to_owned),
        correlation_id: cx.correlation_id(),
        message_id: cx.message_id(),
        request: None,
    }
}

impl<S: Saga> Subscriber for MachineSubscriber<S> {
    fn subscription(&self) -> Subscription {
        self.entry().message.subscription.clone()
    }

    fn name(&self) -> &str {
        &self.definition.name
    }

    fn version(&self) -> u32 {
        self.entry().message.version
    }

    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }

    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError> {
        (self.entry().message.decode)(envelope, &self.definition.name)
    }

    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(future::ready(self.run(&*message, cx)))
    }
}
