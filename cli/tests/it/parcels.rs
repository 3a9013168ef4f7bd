//! A machine whose instances the program shows: parcels, found by their tracking number, too.

use std::time::Duration;

use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{Host, RunningHost, Store};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};

macro_rules! commands {
    ($($name:ident $type:literal,)*) => {
        $(#[derive(Clone, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) parcel: u32,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::Command;
        }

        impl message::Command for $name {}

        impl Correlate<Parcel> for $name {
            fn key(&self) -> u32 {
                self.parcel
            }
        })*
    };
}

commands! {
    Hand "parcels.hand",
    Deliver "parcels.deliver",
    Lose "parcels.lose",
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Parcel {
    parcel: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Moving,
    Lost,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Moving, Self::Lost];

    fn name(self) -> &'static str {
        match self {
            Self::Moving => "moving",
            Self::Lost => "lost",
        }
    }
}

impl Saga for Parcel {
    type Key = u32;
    type State = Stage;

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("tracking", format!("t-{}", self.parcel))]
    }
}

/// Which release of the machine.
#[derive(Clone, Copy)]
pub(crate) enum Release {
    Earlier,
    Current,
}

/// The machine; in an earlier release, a lost parcel could be lost again.
fn parcels(release: Release) -> StateMachine<Parcel> {
    let hand = Parcel::when::<Hand>()
        .init(|m| Parcel { parcel: m.parcel })
        .schedule("patience", Duration::from_secs(3600), |p, _| Lose {
            parcel: p.parcel,
        })
        .transition_to(Stage::Moving);
    let lose = Parcel::when::<Lose>()
        .unschedule("patience")
        .transition_to(Stage::Lost);
    let machine = StateMachine::named("parcel")
        .initially(hand)
        .during(Stage::Moving, lose)
        .during_any(Parcel::when::<Deliver>().finalize());
    match release {
        Release::Earlier => machine.during(Stage::Lost, Parcel::ignore::<Lose>()),
        Release::Current => machine,
    }
}

/// What [`host`] runs, as Mermaid and as Graphviz draw it.
pub(crate) fn drawings() -> [String; 2] {
    [
        parcels(Release::Current).to_mermaid(),
        parcels(Release::Current).to_dot(),
    ]
}

/// Starts a host with the machine.
pub(crate) async fn host(store: impl Store, release: Release) -> RunningHost {
    let host = Host::builder("carrier").store(store);
    let host = host.endpoint("parcels", |e| e.machine(parcels(release)));
    host.build().unwrap().start().await.unwrap()
}
