//! A list of activities that the message brings: walked one by one, longer where one of them says
//! so, and undone in reverse order where one of them fails.

use std::time::Duration;

use sagabus_core::{HandlerError, Message, Result, State};
use sagabus_saga::{
    Handles, NamedSaga, RequestFailed, RequestTimedOut, Saga, SagaCtx, Starts, saga,
};
use sagabus_testkit::bus::Log;
use sagabus_testkit::saga::SagaTest;
use serde::{Deserialize, Serialize};

use crate::stores::everywhere;

/// Longer than any activity takes that answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// One activity and its arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Stop {
    Flight { to: String },
    Room { nights: u32 },
}

messages! { Itinerary:
    Command Travel "trips.travel" { stops: Vec<Stop> },
    Event Arrived "trips.arrived",
    Event Returned "trips.returned",
    Command Fly "flights.book" { to: String },
    Command CancelFlight "flights.cancel" { to: String },
    Command Stay "rooms.book" { nights: u32 },
    Command CancelRoom "rooms.cancel" { nights: u32 },
}

/// What an activity answers.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// What has to follow it.
    next: Vec<Stop>,
}

impl Message for Done {
    const TYPE: &'static str = "trips.done";
}

#[derive(Debug, Serialize, Deserialize)]
struct Itinerary {
    id: u64,
    /// The next one first.
    ahead: Vec<Stop>,
    /// The latest one last.
    behind: Vec<Stop>,
    goes_back: bool,
}

impl Saga for Itinerary {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Itinerary {
    const NAME: &'static str = "itinerary";
}

impl Itinerary {
    /// Asks for the next stop, or for the latest one to be undone.
    fn go_on(&self, cx: &mut SagaCtx) -> Result {
        let id = self.id;
        let next = match self.goes_back {
            true => self.behind.last(),
            false => self.ahead.first(),
        };
        match (self.goes_back, next.cloned()) {
            (false, Some(Stop::Flight { to })) => cx.ask("stop", PATIENCE, Fly { id, to }),
            (false, Some(Stop::Room { nights })) => cx.ask("stop", PATIENCE, Stay { id, nights }),
            (true, Some(Stop::Flight { to })) => cx.ask("stop", PATIENCE, CancelFlight { id, to }),
            (true, Some(Stop::Room { nights })) => {
                cx.ask("stop", PATIENCE, CancelRoom { id, nights })
            }
            (false, None) => {
                cx.complete();
                cx.publish(Arrived { id }).map(drop)
            }
            (true, None) => {
                cx.complete();
                cx.publish(Returned { id }).map(drop)
            }
        }
    }

    fn turn_back(&mut self, why: &str, cx: &mut SagaCtx) -> Result {
        if self.goes_back {
            // What cannot be undone is for a person.
            return Err(HandlerError::new(format!("cannot be undone: {why}")).terminal());
        }
        self.goes_back = true;
        self.go_on(cx)
    }
}

impl Starts<Travel> for Itinerary {
    fn start(message: &Travel) -> Self {
        Self {
            id: message.id,
            ahead: message.stops.clone(),
            behind: Vec::new(),
            goes_back: false,
        }
    }
}

impl Handles<Travel> for Itinerary {
    async fn handle(&mut self, _: Travel, cx: &mut SagaCtx) -> Result {
        self.go_on(cx)
    }
}

impl Handles<Done> for Itinerary {
    async fn handle(&mut self, done: Done, cx: &mut SagaCtx) -> Result {
        if self.goes_back {
            self.behind.pop();
        } else {
            self.behind.push(self.ahead.remove(0));
            self.ahead.splice(..0, done.next);
        }
        self.go_on(cx)
    }
}

impl Handles<RequestFailed> for Itinerary {
    async fn handle(&mut self, failed: RequestFailed, cx: &mut SagaCtx) -> Result {
        self.turn_back(&failed.reason, cx)
    }
}

impl Handles<RequestTimedOut> for Itinerary {
    async fn handle(&mut self, _: RequestTimedOut, cx: &mut SagaCtx) -> Result {
        if !self.goes_back {
            // It may have been done: so it is undone, too.
            self.behind.push(self.ahead.remove(0));
        }
        self.turn_back("no answer", cx)
    }
}

async fn fly(message: Fly, log: State<Log>) -> Result<Option<Done>> {
    let to = message.to;
    log.add(format!("fly to {to}"));
    match &*to {
        "nowhere" => Err(HandlerError::new("there is no such place").terminal()),
        // It never answers.
        "limbo" => Ok(None),
        // Who flies so far stays for a night before anything else.
        "Tokyo" => Ok(Some(Done {
            next: vec![Stop::Room { nights: 1 }],
        })),
        _ => Ok(Some(Done { next: Vec::new() })),
    }
}

async fn cancel_flight(message: CancelFlight, log: State<Log>) -> Done {
    log.add(format!("cancel the flight to {}", message.to));
    Done { next: Vec::new() }
}

async fn stay(message: Stay, log: State<Log>) -> Done {
    log.add(format!("stay for {}", message.nights));
    Done { next: Vec::new() }
}

async fn cancel_room(message: CancelRoom, log: State<Log>) -> Done {
    log.add(format!("cancel the room for {}", message.nights));
    Done { next: Vec::new() }
}

fn flight(to: &str) -> Stop {
    Stop::Flight { to: to.to_owned() }
}

/// Sends somebody on a trip, and returns what was done about it.
fn travel(test: &mut SagaTest, log: &Log, id: u64, stops: Vec<Stop>) -> Vec<String> {
    let before = log.lines().len();
    test.when(Travel { id, stops });
    test.advance(PATIENCE);
    test.then_over(id);
    log.lines().split_off(before)
}

#[test]
fn an_itinerary_made_at_run_time_is_walked_and_undone_in_reverse_order() {
    let log = Log::default();
    let itineraries = || {
        saga::<Itinerary>()
            .starts_with::<Travel>()
            .on_answer::<Done>()
            .on_request_failed()
            .on_request_timed_out()
    };
    let agency = || {
        let log = log.clone();
        let test = SagaTest::saga("itinerary", itineraries).with(move |host| {
            host.state(log.clone())
                .endpoint("flights", |e| e.handle(fly).handle(cancel_flight))
                .endpoint("rooms", |e| e.handle(stay).handle(cancel_room))
        });
        test.receives::<Arrived>().receives::<Returned>()
    };
    everywhere(agency, |mut test| {
        let room = |nights| Stop::Room { nights };
        let done = travel(
            &mut test,
            &log,
            1,
            vec![flight("Rome"), room(3), flight("Oslo")],
        );
        assert_eq!(done, ["fly to Rome", "stay for 3", "fly to Oslo"]);
        let done = travel(&mut test, &log, 2, vec![flight("Tokyo"), room(9)]);
        assert_eq!(done, ["fly to Tokyo", "stay for 1", "stay for 9"]);
        assert_eq!(
            (test.sent::<Arrived>().len(), test.sent::<Returned>().len()),
            (2, 0)
        );

        let stops = vec![flight("Tokyo"), flight("Rome"), flight("nowhere"), room(5)];
        let expected = [
            "fly to Tokyo",
            "stay for 1",
            "fly to Rome",
            "fly to nowhere",
            "cancel the flight to Rome",
            "cancel the room for 1",
            "cancel the flight to Tokyo",
        ];
        assert_eq!(travel(&mut test, &log, 3, stops), expected);
        let expected = [
            "stay for 2",
            "fly to limbo",
            "cancel the flight to limbo",
            "cancel the room for 2",
        ];
        let stops = vec![room(2), flight("limbo"), flight("Rome")];
        assert_eq!(travel(&mut test, &log, 4, stops), expected);
        assert_eq!(
            (test.sent::<Arrived>().len(), test.sent::<Returned>().len()),
            (2, 2)
        );
        // The flight to nowhere, and nothing else.
        assert_eq!(test.dead_letters().len(), 1);
    });
}
