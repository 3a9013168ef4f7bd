//! The till as a machine, and the book in which its messages are written down.

use std::time::Duration;

use sagabus_core::{Command, Event, HostBuilder, Kind, Message, Result, Retry};
use sagabus_saga::{
    Correlate, Handles, MachineEndpoint, Missing, NamedSaga, Saga, SagaCtx, SagaEndpoint,
    SagaState, Starts, StateMachine, saga,
};
use serde::{Deserialize, Serialize};

/// Declares what a till takes.
macro_rules! commands {
    ($($kind:ident $name:ident $type:literal,)*) => {
        $(
            #[derive(Clone, Debug, Serialize, Deserialize)]
            pub(super) struct $name {
                pub(super) key: String,
                pub(super) n: u32,
            }

            impl Message for $name {
                const TYPE: &'static str = $type;
                const KIND: Kind = Kind::$kind;
            }
            impl $kind for $name {}

            impl Correlate<Till> for $name {
                fn key(&self) -> String {
                    self.key.clone()
                }
            }
        )*
    };
}

commands! {
    Command Add "tills.add",
    Command Hold "tills.hold",
    Command Release "tills.release",
    Command Poke "tills.poke",
    Command Close "tills.close",
    Event Due "tills.due",
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    key: String,
    line: String,
}

impl Message for Noted {
    const TYPE: &'static str = "tills.noted";
    const KIND: Kind = Kind::Event;
}
impl Event for Noted {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Open,
    Held,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Open, Self::Held];

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held => "held",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Till {
    key: String,
    pub(super) sum: i64,
    pub(super) fired: Vec<u32>,
}

impl Saga for Till {
    type Key = String;
    type State = Stage;
}

impl Till {
    fn noted(&self, word: &str, n: u32) -> Noted {
        Noted {
            key: self.key.clone(),
            line: format!("{word} {n}"),
        }
    }
}

/// From at once to after everything else.
fn delay(n: u32) -> Duration {
    Duration::from_millis([1, 8, 25, 60][n as usize % 4])
}

/// The machine; one that does not cancel has a mistake for the judge to find.
fn tills(cancels: bool) -> StateMachine<Till> {
    let release = Till::when::<Release>();
    let release = if cancels {
        release.unschedule("due")
    } else {
        release
    };
    let begin = Till::when::<Add>().init(|m| Till {
        key: m.key.clone(),
        sum: i64::from(m.n),
        fired: Vec::new(),
    });
    let begin = begin.publish(|t, m| t.noted("add", m.n));
    let add = Till::when::<Add>().then(|t, m| t.sum += i64::from(m.n));
    let hold = Till::when::<Hold>().schedule_after(
        "due",
        |_, m| delay(m.n),
        |t, m| Due {
            key: t.key.clone(),
            n: m.n,
        },
    );
    let due = Till::when::<Due>()
        .then(|t, m| t.fired.push(m.n))
        .publish(|t, m| t.noted("due", m.n));
    let poke = Till::when::<Poke>().publish(|t, m| t.noted("poke", m.n));
    let close = Till::when::<Close>().publish(|t, m| t.noted("close", m.n));
    StateMachine::named("till")
        .initially(begin.transition_to(Stage::Open))
        .during_any(add.publish(|t, m| t.noted("add", m.n)).stay())
        .during_any(hold.transition_to(Stage::Held))
        .during_any(close.finalize())
        .during(Stage::Held, release.transition_to(Stage::Open))
        .during(Stage::Held, due.transition_to(Stage::Open))
        .during(Stage::Held, poke.stay())
        .during(Stage::Open, Till::defer::<Poke>())
        .during(Stage::Open, Till::ignore::<Release>())
        .missing(Missing::DeadLetter)
}

/// Everything that was ever noted about a till.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) lines: Vec<String>,
}

impl Saga for Book {
    type Key = String;
    type State = ();
}

impl NamedSaga for Book {
    const NAME: &'static str = "book";
}

impl Correlate<Book> for Noted {
    fn key(&self) -> String {
        self.key.clone()
    }
}

impl Starts<Noted> for Book {
    fn start(_: &Noted) -> Self {
        Self::default()
    }
}

impl Handles<Noted> for Book {
    async fn handle(&mut self, message: Noted, _: &mut SagaCtx) -> Result {
        self.lines.push(message.line);
        Ok(())
    }
}

/// Gives a host the till and its book.
pub(super) fn equip(builder: HostBuilder, cancels: bool) -> HostBuilder {
    let retry = || Retry {
        immediate: 1,
        delayed: 5,
        delay: Duration::from_millis(10),
        delay_max: Duration::from_millis(40),
        ..Retry::default()
    };
    let books = saga::<Book>().starts_with::<Noted>().merges();
    builder
        .lease(LEASE)
        .endpoint("tills", |e| e.machine(tills(cancels)).retry(retry()))
        .endpoint("books", |e| e.saga(books).retry(retry()))
}

/// Short: whoever dies is missed for so long.
const LEASE: Duration = Duration::from_millis(300);
