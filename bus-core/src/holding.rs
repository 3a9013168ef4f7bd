//! Endpoints that an operator paused: every host looks once a second which of its own are.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::endpoint::EndpointName;
use crate::error::StoreError;
use crate::gate::Gate;
use crate::id::InstanceId;
use crate::lifecycle::Lifecycle;
use crate::store::{Question, Store};

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

/// The gates of a host's endpoints, which operators may hold.
pub(crate) struct Holding {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) gates: Vec<(EndpointName, Arc<Gate>)>,
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

    /// Asks for all endpoints at once, and holds or opens their gates.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let question = |(name, _): &(EndpointName, Arc<Gate>)| Question {
            instance: Some(pause_id(name.as_str())),
            ..Question::default()
        };
        let questions: Vec<_> = self.gates.iter().map(question).collect();
        let answers = self.store.load(&questions).await?;
        for ((_, gate), answer) in self.gates.iter().zip(answers) {
            gate.hold(answer.instance.is_some());
        }
        Ok(())
    }
}
