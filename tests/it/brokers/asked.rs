//! A saga asks another service, which has a database of its own: an answer, news of its failure, or
//! time-out comes back to the very instance.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus::{HostBuilder, Retry, RunningHost};
use sagabus_testkit::bus::Log;
use serde::{Deserialize, Serialize};

use super::{Broker, Way, builder, site};
use crate::databases::{block_on, say};

#[derive(Command, Serialize, Deserialize)]
#[message("quotes.quote", correlate(Quote = id))]
struct MakeQuote {
    id: u64,
}

#[derive(Command, Serialize, Deserialize)]
#[message("prices.ask")]
struct AskPrice {
    id: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message("prices.price")]
struct Price {
    cents: u64,
}

#[derive(Default, Serialize, Deserialize, Saga)]
#[saga("quote", key = u64)]
struct Quote {
    id: u64,
}

impl Quote {
    fn end(&self, cx: &mut SagaCtx, how: &str) -> Result {
        cx.state::<Log>()?.add(format!("{} {how}", self.id));
        cx.complete();
        Ok(())
    }
}

impl Starts<MakeQuote> for Quote {
    fn start(message: &MakeQuote) -> Self {
        Self { id: message.id }
    }
}

impl Handles<MakeQuote> for Quote {
    async fn handle(&mut self, _: MakeQuote, cx: &mut SagaCtx) -> Result {
        let patience = Duration::from_secs(if Ending::of(self.id) == Ending::Late {
            2
        } else {
            60
        });
        cx.ask("price", patience, AskPrice { id: self.id })
    }
}

impl Handles<Price> for Quote {
    async fn handle(&mut self, price: Price, cx: &mut SagaCtx) -> Result {
        self.end(cx, &format!("costs {}", price.cents))
    }
}

impl Handles<RequestFailed> for Quote {
    async fn handle(&mut self, news: RequestFailed, cx: &mut SagaCtx) -> Result {
        self.end(cx, &format!("failed: {}", news.reason))
    }
}

impl Handles<RequestTimedOut> for Quote {
    async fn handle(&mut self, _: RequestTimedOut, cx: &mut SagaCtx) -> Result {
        self.end(cx, "timed out")
    }
}

/// What becomes of a question.
#[derive(PartialEq, Eq)]
enum Ending {
    Answered,
    Refused,
    Late,
}

impl Ending {
    fn of(id: u64) -> Self {
        match id % 3 {
            0 => Self::Answered,
            1 => Self::Refused,
            _ => Self::Late,
        }
    }
}

async fn price(question: AskPrice) -> Result<Price> {
    match Ending::of(question.id) {
        Ending::Answered => Ok(Price {
            cents: question.id * 100,
        }),
        Ending::Refused => Err(HandlerError::new("not in the list").terminal()),
        // Tried again when the question is no longer asked.
        Ending::Late => Err(HandlerError::new("the list is not there yet")),
    }
}

#[test]
fn over_rabbitmq_a_saga_asks_another_service() {
    block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check(broker).await;
        }
    });
}

#[test]
fn over_kafka_a_saga_asks_another_service() {
    block_on(async {
        if let Some(broker) = Broker::kafka().await {
            check(broker).await;
        }
    });
}

/// Quotes that are made.
const QUOTES: u64 = 30;

async fn check(broker: Broker) {
    let ours = site(&format!("asking_{}", broker.name)).await;
    let theirs = site(&format!("asked_{}", broker.name)).await;
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return;
    };
    let log = Log::default();
    let retry = Retry {
        immediate: 0,
        delayed: 1,
        delay: Duration::from_secs(3600),
        delay_max: Duration::from_secs(3600),
        ..Retry::default()
    };
    let prices = (broker.reach)(builder("prices", &theirs.url).await, Way::Direct);
    let prices = run(prices.endpoint("prices", |e| e.handle(price).retry(retry))).await;
    let quote = saga::<Quote>()
        .starts_with::<MakeQuote>()
        .on_answer::<Price>()
        .on_request_failed()
        .on_request_timed_out()
        .uses::<State<Log>>();
    let quotes = (broker.reach)(builder("quotes", &ours.url).await, Way::Direct);
    let quotes = run(quotes
        .state(log.clone())
        .endpoint("quotes", |e| e.saga(quote)))
    .await;
    let bus = quotes.bus();
    for id in 0..QUOTES {
        bus.send(MakeQuote { id }).await.expect("it is stored");
    }
    let expected = usize::try_from(QUOTES).expect("they are few");
    let mut lines = log.wait_for(expected).await;
    for host in [quotes, prices] {
        assert!(host.stop(Duration::from_secs(20)).await);
    }
    let mut wanted: Vec<_> = (0..QUOTES)
        .map(|id| match Ending::of(id) {
            Ending::Answered => format!("{id} costs {}", id * 100),
            Ending::Refused => format!("{id} failed: terminal"),
            Ending::Late => format!("{id} timed out"),
        })
        .collect();
    lines.sort();
    wanted.sort();
    assert_eq!(lines, wanted);
    let running = "select count(*) from sagabus.instance where not completed";
    assert_eq!(ours.number(running).await, 0);
    say(&format!(
        "{}: {QUOTES} questions to another service: answered, failed and timed out as they should\n",
        broker.name
    ));
}

async fn run(builder: HostBuilder) -> RunningHost {
    let host = builder.build().expect("it is put together well");
    host.start().await.expect("the host starts")
}
