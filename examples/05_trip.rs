//! A trip is booked leg by leg; where one cannot be, what was booked is cancelled in reverse order.
//!
//! ```text
//! booked train
//! booked ship
//! trip 0 is booked
//! booked train
//! booked ship
//! cancelled ship
//! cancelled train
//! trip 1 is cancelled
//! ```

use sagabus::machine::{Closed, NotStarted, Open, When};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("trips.book", correlate(Trip = id))]
struct BookTrip {
    id: u32,
    legs: Vec<String>,
}

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("legs.book")]
struct BookLeg(String);

#[derive(Message, Clone, Serialize, Deserialize)]
#[message("legs.booked")]
struct Booked;

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("legs.cancel")]
struct CancelLeg(String);

#[derive(Message, Clone, Serialize, Deserialize)]
#[message("legs.cancelled")]
struct Cancelled;

#[derive(Event, Serialize, Deserialize)]
#[message("trips.told")]
struct Told(String);

#[derive(Serialize, Deserialize, Saga)]
#[saga(key = u32, state = Stage)]
struct Trip {
    id: u32,
    /// What is still to be booked, the next one last.
    wanted: Vec<String>,
    /// What is booked, the latest last.
    booked: Vec<String>,
}

impl Trip {
    fn next_leg(&self) -> BookLeg {
        BookLeg(self.wanted.last().cloned().unwrap_or_default())
    }

    fn latest_leg(&self) -> CancelLeg {
        CancelLeg(self.booked.last().cloned().unwrap_or_default())
    }

    fn told(&self, what: &str) -> Told {
        Told(format!("trip {} {what}", self.id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Booking,
    Cancelling,
}

fn trips() -> StateMachine<Trip> {
    let patience = 10.secs();
    let start = Trip::when::<BookTrip>()
        .init(|m| Trip {
            id: m.id,
            wanted: m.legs.iter().rev().cloned().collect(),
            booked: Vec::new(),
        })
        .ask("leg", patience, |t, _| t.next_leg())
        .transition_to(Stage::Booking);
    let all_booked = Trip::when_answered::<Booked>("leg")
        .given(|t, _| t.wanted.len() == 1)
        .publish(|t, _| t.told("is booked"))
        .finalize();
    let one_booked = Trip::when_answered::<Booked>("leg")
        .then(|t, _| t.booked.extend(t.wanted.pop()))
        .ask("leg", patience, |t, _| t.next_leg())
        .stay();
    let nothing_to_undo = Trip::when_failed("leg")
        .given(|t, _| t.booked.is_empty())
        .publish(|t, _| t.told("is cancelled"))
        .finalize();
    let undo = Trip::when_failed("leg")
        .ask("undo", patience, |t, _| t.latest_leg())
        .transition_to(Stage::Cancelling);
    let all_undone = Trip::when_answered::<Cancelled>("undo")
        .given(|t, _| t.booked.len() == 1)
        .publish(|t, _| t.told("is cancelled"))
        .finalize();
    let one_undone = Trip::when_answered::<Cancelled>("undo")
        .then(|t, _| t.booked.truncate(t.booked.len() - 1))
        .ask("undo", patience, |t, _| t.latest_leg())
        .stay();
    StateMachine::named("trip")
        .initially(start)
        .during(Stage::Booking, all_booked)
        .during(Stage::Booking, one_booked)
        .during(Stage::Booking, nothing_to_undo)
        .during(Stage::Booking, undo)
        // Whether a leg that nobody answers for is booked is not known: a person has to look.
        .during(
            Stage::Booking,
            Trip::when_timed_out("leg")
                .publish(|t, _| t.told("is stuck while booking"))
                .stay(),
        )
        .during(Stage::Cancelling, all_undone)
        .during(Stage::Cancelling, one_undone)
        .during(Stage::Cancelling, stuck(Trip::when_failed("undo")))
        .during(Stage::Cancelling, stuck(Trip::when_timed_out("undo")))
}

type Asked<M> = When<Trip, M, NotStarted, Open>;

/// What could not be undone is a person's to undo; the trip stays where it is, for them to see.
fn stuck<M: Send + Sync + 'static>(news: Asked<M>) -> When<Trip, M, NotStarted, Closed> {
    news.publish(|t, _| t.told("is stuck while cancelling"))
        .stay()
}

async fn book(command: BookLeg, seen: State<mpsc::Sender<String>>) -> Result<Booked> {
    if command.0 == "moon" {
        return Err(HandlerError::new("nobody flies there").terminal());
    }
    seen.send(format!("booked {}", command.0)).await?;
    Ok(Booked)
}

async fn cancel(command: CancelLeg, seen: State<mpsc::Sender<String>>) -> Result<Cancelled> {
    seen.send(format!("cancelled {}", command.0)).await?;
    Ok(Cancelled)
}

async fn show(event: Told, seen: State<mpsc::Sender<String>>) -> Result {
    seen.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("sagabus-travel-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("travel.db")).await?;
    store.migrate().await?;
    let (sender, mut seen) = mpsc::channel::<String>(8);
    let host = Host::builder("travel")
        .store(store)
        .state(sender)
        .endpoint("trips", |e| e.machine(trips()))
        .endpoint("legs", |e| e.handle(book).handle(cancel))
        .endpoint("show", |e| e.handle(show))
        .build()?;
    let host = host.start().await?;
    let trips: [(&[&str], &[&str]); 2] = [
        (
            &["train", "ship"],
            &["booked train", "booked ship", "trip 0 is booked"],
        ),
        (
            &["train", "ship", "moon"],
            &[
                "booked train",
                "booked ship",
                "cancelled ship",
                "cancelled train",
                "trip 1 is cancelled",
            ],
        ),
    ];
    for (id, (legs, expected)) in (0..).zip(trips) {
        let legs = legs.iter().map(|&leg| leg.to_owned()).collect();
        host.bus().send(BookTrip { id, legs }).await?;
        for line in expected {
            let told = seen.recv().await.unwrap_or_default();
            println!("{told}");
            assert_eq!(told, *line);
        }
    }
    host.stop(5.secs()).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
