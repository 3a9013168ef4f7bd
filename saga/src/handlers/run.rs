//! A handler-per-message saga at work: one message, one instance change.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sagabus_core::envelope::Envelope;
use sagabus_core::error::{CodecError, HandlerError};
use sagabus_core::handler::{Decoded, Need, Subscriber};
use sagabus_core::store::Subscription;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Ctx, InstanceId, Result};

use super::builder::{Entry, HandlerSaga};
use super::context::SagaCtx;
use crate::effects::{Before, Effects, Move, changed_labels, stage};
use crate::lock;
use crate::saga::Saga;
use crate::standing::{Standing, held, look};
use crate::stored::{Book, read, write};

/// One message type of a saga, as the engine sees it.
pub(super) struct HandlerSubscriber<S> {
    saga: Arc<HandlerSaga<S>>,
    index: usize,
}

impl<S: Saga> HandlerSubscriber<S> {
    pub(super) fn new(saga: Arc<HandlerSaga<S>>, index: usize) -> Self {
        Self { saga, index }
    }

    fn entry(&self) -> &Entry<S> {
        &self.saga.entries[self.index]
    }

    /// Stages an instance because an operator says so: as it is, in the shape of this release, or at
    /// its end, as a handler leaves it that completes it and does nothing else.
    fn put_by_hand(&self, cx: &Ctx, is_over: bool) -> Result {
        let instance = held(cx)?;
        let (data, mut book) = read::<S>(instance)?;
        let mut effects = Effects::new(Arc::clone(&self.saga.name));
        if is_over {
            lock::settle(&mut book, &mut effects, cx, is_over)?;
        }
        let to = Changed {
            id: instance.id.clone(),
            is_new: false,
            is_over,
            labels: Before::of(cx, false, &data),
        };
        to.stage(cx, &data, &book, effects)
    }

    async fn run(&self, message: Box<dyn Any + Send + Sync>, cx: &Ctx) -> Result {
        let (saga, entry) = (&*self.saga, self.entry());
        let starts = entry.start.is_some();
        let standing = look(cx, &saga.name, starts, saga.lives, saga.missing)?;
        let ((mut data, mut book), is_new, request) = match (standing, entry.start) {
            (Standing::Nothing(note), _) => return cx.note(None, Some(note.into())),
            (Standing::Running(instance, request), _) => (read::<S>(instance)?, false, request),
            (Standing::Free, Some(start)) => ((start(&*message), Book::default()), true, None),
            (Standing::Free, None) => {
                return Err(HandlerError::new("message starts nothing").terminal());
            }
        };
        let labels = Before::of(cx, is_new, &data);
        let mut saga_cx = SagaCtx::new(cx.clone(), Arc::clone(&saga.name));
        lock::too_early(&book, cx, request.as_ref())?;
        if let Some(request) = request {
            lock::answered(&mut book, &mut saga_cx.effects, cx, request);
        }
        (entry.handle)(&mut data, message, &mut saga_cx).await?;
        let is_over = saga_cx.is_complete;
        lock::settle(&mut book, &mut saga_cx.effects, cx, is_over)?;
        let lost = || HandlerError::new("message has lost its key").terminal();
        let to = Changed {
            id: cx.instance_id().cloned().ok_or_else(lost)?,
            is_new,
            is_over,
            labels,
        };
        to.stage(cx, &data, &book, saga_cx.effects)
    }
}

/// An instance that a message, or an operator, has changed.
struct Changed {
    id: InstanceId,
    is_new: bool,
    is_over: bool,
    /// What it had before.
    labels: Before,
}

impl Changed {
    fn stage<S: Saga>(self, cx: &Ctx, data: &S, book: &Book, effects: Effects) -> Result {
        let to = Move {
            id: self.id,
            is_new: self.is_new,
            status: match self.is_over {
                true => InstanceStatus::Completed,
                false => InstanceStatus::Running,
            },
            state_from: None,
            state: None,
            schema_version: S::SCHEMA_VERSION,
            data: write(data, book)?,
            note: None,
            labels: changed_labels(&self.labels, data)?,
        };
        stage(cx, to, effects)
    }
}

impl<S: Saga> Subscriber for HandlerSubscriber<S> {
    fn subscription(&self) -> Subscription {
        self.entry().message.subscription.clone()
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.entry().message.aliases
    }

    fn name(&self) -> &str {
        &self.saga.name
    }

    fn version(&self) -> u32 {
        self.entry().message.version
    }

    fn needs(&self) -> Vec<Need> {
        self.saga.needs.clone()
    }

    fn decode(&self, envelope: &Envelope) -> std::result::Result<Decoded, CodecError> {
        (self.entry().message.decode)(envelope, &self.saga.name)
    }

    fn schema_version(&self) -> Option<i32> {
        Some(S::SCHEMA_VERSION)
    }

    fn rewrite(&self, cx: &Ctx) -> Result {
        self.put_by_hand(cx, false)
    }

    fn cancel<'a>(&'a self, cx: &'a Ctx) -> BoxFuture<'a, Result> {
        Box::pin(std::future::ready(self.put_by_hand(cx, true)))
    }

    fn merges(&self) -> bool {
        self.saga.merges
    }

    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result> {
        Box::pin(self.run(message, cx))
    }
}
