//! Endpoints that an operator paused, or asks to do something: every host looks once a second which of
//! its own are.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::errand_id;
use crate::backoff::Backoff;
use crate::errands;
use crate::error::StoreError;
use crate::handling::Endpoint;
use crate::id::InstanceId;
use crate::lifecycle::Lifecycle;
use crate::store::{Question, Store};
use crate::store_clock::StoreClock;

/// The kind of the instances that say of an endpoint that it is paused. The row is there, or it
/// goes on.
pub const PAUSE_KIND: &str = "@endpoint";
/// The pause between two looks: how soon an operator's word is heard.
const POLL: Duration = Duration::from_secs(1);

/// Names the row that pauses an endpoint.
pub fn pause_id(endpoint: &str) -> InstanceId {
    InstanceId {
        kind: PAUSE_KIND.into(),
        key: endpoint.into(),
    }
}

/// A host's endpoints, which operators may hold, and ask to do something.
pub(crate) struct Holding {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) clock: Arc<StoreClock>,
    pub(crate) lifecycle: Lifecycle,
}

impl Holding {
    /// Looks until the host drains.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new("look for paused endpoints");
        loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            match self.look().await {
                Ok(()) => backoff.ended(),
                // What was held stays held, what was not goes on: as it was said last.
                Err(error) => backoff.failed(&error).await,
            }
        }
    }

    /// Asks for all endpoints at once, holds or opens their gates, and sets about what is asked of
    /// them.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let names = || self.endpoints.iter().map(|one| one.name.as_str());
        let ids = names().map(pause_id).chain(names().map(errand_id));
        let question = |id| Question {
            instance: Some(id),
            ..Question::default()
        };
        let questions: Vec<_> = ids.map(question).collect();
        let mut pauses = self.store.load(&questions).await?;
        let errands = pauses.split_off(self.endpoints.len().min(pauses.len()));
        for (endpoint, answer) in self.endpoints.iter().zip(pauses) {
            endpoint.gate.hold(answer.instance.is_some());
        }
        for (endpoint, answer) in self.endpoints.iter().zip(errands) {
            if let Some(row) = answer.instance.filter(errands::is_asked) {
                let (endpoint, now) = (Arc::clone(endpoint), self.clock.now());
                self.lifecycle.spawn(errands::attend(endpoint, row, now));
            }
        }
        Ok(())
    }
}
