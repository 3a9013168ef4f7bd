//! A saga whose key is any text.

use sagabus_core::{Command, Kind, Message, Result, RunningHost};
use sagabus_saga::{Correlate, Handles, NamedSaga, Saga, SagaCtx, SagaEndpoint, Starts, saga};
use sagabus_testkit::bus::{Scene, start};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greet(pub(crate) String);

impl Message for Greet {
    const TYPE: &'static str = "names.greet";
    const KIND: Kind = Kind::Command;
}
impl Command for Greet {}

#[derive(Debug, Serialize, Deserialize)]
struct Greeting;

impl Saga for Greeting {
    type Key = String;
    type State = ();
}

impl NamedSaga for Greeting {
    const NAME: &'static str = "greeting";
}

impl Correlate<Greeting> for Greet {
    fn key(&self) -> String {
        self.0.clone()
    }
}

impl Starts<Greet> for Greeting {
    fn start(_: &Greet) -> Self {
        Self
    }
}

impl Handles<Greet> for Greeting {
    async fn handle(&mut self, _: Greet, _: &mut SagaCtx) -> Result {
        Ok(())
    }
}

pub(crate) async fn host(scene: &Scene) -> RunningHost {
    let greetings = saga::<Greeting>().starts_with::<Greet>();
    start(
        scene
            .builder("names")
            .endpoint("names", |e| e.saga(greetings)),
    )
    .await
}
