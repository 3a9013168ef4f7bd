//! Endpoints and transports that an operator paused, and endpoints that are asked to do something:
//! every host looks once a second which of its own are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::errand_id;
use crate::backoff::Backoff;
use crate::errands;
use crate::error::StoreError;
use crate::handling::Endpoint;
use crate::id::InstanceId;
use crate::lifecycle::Lifecycle;
use crate::store::{Question, Store};
use crate::store_clock::StoreClock;
use crate::sync::time;
use crate::transports::TransportName;

/// The kind of the instances that say of an endpoint that it is paused. The row is there, or it
/// goes on.
pub const PAUSE_KIND: &str = "@endpoint";
/// The kind of the instances that say of a transport that nothing is sent by it.
pub const TRANSPORT_PAUSE_KIND: &str = "@transport";
/// The pause between two looks: how soon an operator's word is heard.
const POLL: Duration = Duration::from_secs(1);

/// Names the row that pauses an endpoint.
pub fn pause_id(endpoint: &str) -> InstanceId {
    InstanceId {
        kind: PAUSE_KIND.into(),
        key: endpoint.into(),
    }
}

/// Names the row that pauses a transport: `default` is the one without a name.
pub fn transport_pause_id(transport: &str) -> InstanceId {
    InstanceId {
        kind: TRANSPORT_PAUSE_KIND.into(),
        key: transport.into(),
    }
}

/// What of a host operators may hold, and ask to do something.
pub(crate) struct Holding {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) clock: Arc<StoreClock>,
    /// Its relays, each of which is told whether it is held.
    pub(crate) relays: Vec<(TransportName, watch::Sender<bool>)>,
    pub(crate) lifecycle: Lifecycle,
}

/// Whether a look is the first one of its host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    First,
    Again,
}

impl Holding {
    /// Looks until the host drains.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new("look for what is paused");
        loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => return,
                () = time::sleep(POLL) => {}
            }
            match self.look(Look::Again).await {
                Ok(()) => backoff.ended(),
                // What was held stays held, what was not goes on: as it was said last.
                Err(error) => backoff.failed(&error).await,
            }
        }
    }

    /// Asks for all of them at once, holds them or lets them go on, and sets about what is asked of
    /// the endpoints.
    pub(crate) async fn look(&self, look: Look) -> Result<(), StoreError> {
        let names = || self.endpoints.iter().map(|one| one.name.as_str());
        let transports = self.relays.iter();
        let transports = transports.map(|(name, _)| transport_pause_id(&name.to_string()));
        let ids = names().map(pause_id).chain(names().map(errand_id));
        let question = |id| Question {
            instance: Some(id),
            ..Question::default()
        };
        let questions: Vec<_> = ids.chain(transports).map(question).collect();
        let answers = self.store.load(&questions).await?;
        let mut rows = answers.into_iter().map(|answer| answer.instance);
        for (endpoint, row) in self.endpoints.iter().zip(rows.by_ref()) {
            endpoint.gate.hold(row.is_some());
        }
        for (endpoint, row) in self.endpoints.iter().zip(rows.by_ref()) {
            if let Some(row) = row.filter(errands::is_asked) {
                let (endpoint, now) = (Arc::clone(endpoint), self.clock.now());
                self.lifecycle.spawn(errands::attend(endpoint, row, now));
            }
        }
        self.hold_relays(rows.map(|row| row.is_some()), look);
        Ok(())
    }

    fn hold_relays(&self, held: impl Iterator<Item = bool>, look: Look) {
        for ((name, relay), is_held) in self.relays.iter().zip(held) {
            let was_held = relay.send_replace(is_held);
            match look {
                // Before the first look all are held, which is no news.
                Look::First if is_held => say(name, is_held),
                Look::Again if was_held != is_held => say(name, is_held),
                Look::First | Look::Again => {}
            }
        }
    }
}

fn say(transport: &TransportName, is_held: bool) {
    match is_held {
        true => tracing::warn!(%transport, "an operator paused the transport"),
        false => tracing::info!(%transport, "the transport goes on"),
    }
}
