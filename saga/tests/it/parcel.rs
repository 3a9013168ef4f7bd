//! A parcel's way, with everything that a machine can say.

use std::time::Duration;

use sagabus_core::{HandlerError, Message, Result, State};
use sagabus_saga::{Missing, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::Log;
use serde::{Deserialize, Serialize};

messages! { Parcel:
    Command Register "parcels.register",
    Command Prepay "parcels.prepay",
    Event Weighed "parcels.weighed",
    Event Labelled "parcels.labelled",
    Command Remark "parcels.remark",
    Command Deliver "parcels.deliver",
    Command Touch "parcels.touch",
    Command Inspect "parcels.inspect",
    Command Insure "parcels.insure",
    Command AskCustoms "customs.clear",
    Command Clear "parcels.clear",
    Command Never "parcels.never",
    Event Left "parcels.left",
    Command StartParcel "shop.start-parcel",
    Event Uninsured "parcels.uninsured",
}

/// Answers whoever registered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Delivered {
    pub(crate) id: u64,
}

impl Message for Delivered {
    const TYPE: &'static str = "parcels.delivered";
}

/// What customs answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cleared {
    pub(crate) fee: u64,
}

impl Message for Cleared {
    const TYPE: &'static str = "customs.cleared";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// One of the two below.
    Warehouse,
    Packing,
    Checking,
    Moving,
}

impl SagaState for Place {
    const ALL: &'static [Self] = &[Self::Warehouse, Self::Packing, Self::Checking, Self::Moving];

    fn name(self) -> &'static str {
        match self {
            Self::Warehouse => "warehouse",
            Self::Packing => "packing",
            Self::Checking => "checking",
            Self::Moving => "moving",
        }
    }

    fn within(self) -> Option<Self> {
        matches!(self, Self::Packing | Self::Checking).then_some(Self::Warehouse)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) id: u64,
    /// What happened, in order.
    pub(crate) trail: Vec<String>,
}

impl Parcel {
    fn new(id: u64) -> Self {
        let trail = Vec::new();
        Self { id, trail }
    }

    fn note(&mut self, what: &str) {
        self.trail.push(what.to_owned());
    }

    /// Odd ones are heavy.
    fn is_heavy(&self) -> bool {
        self.id % 2 == 1
    }
}

impl Saga for Parcel {
    type Key = u64;
    type State = Place;
}

/// Insures what is worth it; 13 never is.
async fn insure(mut parcel: Parcel, message: Insure, log: State<Log>) -> Result<Parcel> {
    log.add(format!("insures {}", message.id));
    parcel.note("insured");
    if message.id == 13 {
        return Err(HandlerError::new("nobody insures 13"));
    }
    Ok(parcel)
}

/// Answers its own failure by failing again.
async fn fail(_: Parcel, _: Insure) -> Result<Parcel> {
    Err(HandlerError::new("the answer fails, too").terminal())
}

pub(crate) fn parcel_machine() -> StateMachine<Parcel> {
    let machine = StateMachine::named("parcel")
        .initially(
            Parcel::when_if::<Register>(|p, _| p.is_heavy())
                .init(|m| Parcel::new(m.id))
                .transition_to(Place::Checking),
        )
        .initially(
            Parcel::when_else::<Register>()
                .init(|m| Parcel::new(m.id))
                .transition_to(Place::Packing),
        )
        .initially(
            Parcel::when::<Prepay>()
                .init(|m| Parcel::new(m.id))
                .then(|p, _| p.note("prepaid"))
                .transition_to(Place::Packing),
        )
        .during(
            Place::Warehouse,
            Parcel::when_all::<(Weighed, Labelled)>("ready")
                .then(|p, ()| p.note("ready"))
                .publish(|p, ()| Left { id: p.id })
                .transition_to(Place::Moving),
        )
        .during(
            Place::Packing,
            Parcel::when::<Weighed>()
                .then(|p, _| p.note("weighed"))
                .stay(),
        )
        .during(
            [Place::Packing, Place::Checking],
            Parcel::when_if::<Inspect>(|p, _| p.is_heavy())
                .then(|p, _| p.note("inspected"))
                .transition_to(Place::Checking),
        )
        .during(
            Place::Packing,
            Parcel::when_else::<Inspect>()
                .only_if(
                    |p, _| p.id > 100,
                    |steps| steps.then(|p, _| p.note("large number")),
                )
                .then(|p, _| p.note("waved through"))
                .stay(),
        )
        .during(
            Place::Warehouse,
            Parcel::when::<Remark>()
                .then(|p, _| p.note("remark"))
                .stay(),
        )
        .during(Place::Warehouse, Parcel::defer::<Deliver>())
        .during(Place::Moving, Parcel::ignore::<Touch>())
        .during_any(Parcel::defer::<Never>())
        .during(
            Place::Moving,
            Parcel::when::<Deliver>()
                .respond(|p, _| Delivered { id: p.id })
                .finalize(),
        );
    with_hooks(with_questions(machine)).missing(Missing::Wait(Duration::from_millis(60)))
}

fn with_questions(machine: StateMachine<Parcel>) -> StateMachine<Parcel> {
    machine
        .during_any(
            Parcel::when_if::<Insure>(|p, _| p.id == 26)
                .run(fail)
                .stay()
                .on_failure(Parcel::when::<Insure>().run(fail).stay()),
        )
        .during_any(
            Parcel::when_else::<Insure>()
                .run(insure)
                .publish(|p, _| Left { id: p.id })
                .stay()
                .on_failure(
                    Parcel::when::<Insure>()
                        .then(|p, _| p.note("uninsured"))
                        .publish(|p, _| Uninsured { id: p.id })
                        .stay(),
                ),
        )
        .during(
            Place::Warehouse,
            Parcel::when::<Clear>()
                .ask("customs", Duration::from_millis(150), |p, _| AskCustoms {
                    id: p.id,
                })
                .stay(),
        )
        .during_any(
            Parcel::when_answered::<Cleared>("customs")
                .then(|p, m| p.note(&format!("cleared for {}", m.fee)))
                .stay(),
        )
        .during_any(
            Parcel::when_failed("customs")
                .then(|p, m| p.note(&format!("not cleared: {}", m.reason)))
                .stay(),
        )
        .during_any(
            Parcel::when_timed_out("customs")
                .then(|p, _| p.note("not cleared in time"))
                .stay(),
        )
}

fn with_hooks(machine: StateMachine<Parcel>) -> StateMachine<Parcel> {
    machine
        .on_enter(Place::Warehouse, |s| {
            s.then(|p, ()| p.note("enter warehouse"))
        })
        .on_enter(Place::Packing, |s| s.then(|p, ()| p.note("enter packing")))
        .on_leave(Place::Packing, |s| s.then(|p, ()| p.note("leave packing")))
        .on_leave(Place::Warehouse, |s| {
            s.then(|p, ()| p.note("leave warehouse"))
        })
        .on_enter(Place::Moving, |s| s.then(|p, ()| p.note("enter moving")))
        .before_any(|s| s.then(|p, ()| p.note("before")))
        .after_any(|s| s.then(|p, ()| p.note("after")))
        .finally(|s| s.then(|p, ()| p.note("over")))
}
