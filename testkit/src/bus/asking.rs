//! An API asks and waits for the answer.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::time::Duration;

use sagabus_core::admin::{HistoryOf, Page};
use sagabus_core::error::{BusError, HandlerError, RequestError};
use sagabus_core::{Bus, EndpointBuilder, MessageId, RunningHost, State};

use super::scene::{Answered, Do, Log, Scene, quick_retry, start, stop};
use crate::wait::eventually;

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(20);
/// Short enough to be over before a slow handler is.
const SHORT: Duration = Duration::from_millis(100);

async fn answer(command: Do, log: State<Log>) -> Answered {
    log.add(format!("asked {}", command.n));
    Answered { n: command.n * 2 }
}

async fn refuse(command: Do) -> Result<Answered, HandlerError> {
    Err(HandlerError::new(format!("{} cannot be", command.n)).terminal())
}

fn ask(e: EndpointBuilder) -> EndpointBuilder {
    e.answers::<Answered>()
}

/// Starts a host that answers, and asks.
async fn both(
    scene: &Scene,
    answers: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
) -> RunningHost {
    let builder = scene.builder("host").endpoint("shop", ask);
    start(builder.endpoint("prices", answers)).await
}

async fn late_answers(host: &RunningHost) {
    let counted = async || (host.counters().late_answers.get() == 1).then_some(());
    eventually("a late answer", counted).await;
}

pub async fn who_asks_gets_the_answer(scene: Scene) {
    let host = both(&scene, |e| e.handle(answer)).await;
    let bus = host.bus();
    let asked = (1..=20).map(|n| bus.request::<Answered>(Do { n }).within(LONG));
    let answers = futures_util::future::join_all(asked).await;
    for (n, answer) in (1..).zip(answers) {
        assert_eq!(answer.expect("it is answered").n, n * 2);
    }
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 20);
}

/// Several processes of one service read the endpoint to which answers come.
pub async fn each_process_gets_the_answers_to_its_own_questions(scene: Scene) {
    // No heartbeat of others wakes a process that has nothing to do.
    let rarely = Duration::from_secs(120);
    let one = scene.builder("shop").lease(rarely).endpoint("shop", ask);
    let one = start(one).await;
    let two = scene.builder_on("shop", scene.peer()).lease(rarely);
    let two = start(two.endpoint("shop", ask)).await;
    let prices = scene.builder("prices").lease(rarely);
    let prices = start(prices.endpoint("prices", |e| e.handle(answer))).await;
    let ask = |bus: Bus, n| async move { bus.request::<Answered>(Do { n }).within(LONG).await };
    for n in 1..=10 {
        let answers = tokio::join!(ask(one.bus(), n), ask(two.bus(), n + 100));
        assert_eq!(answers.0.expect("it is answered").n, n * 2);
        assert_eq!(answers.1.expect("it is answered").n, (n + 100) * 2);
    }
    for host in [prices, one, two] {
        stop(host).await;
    }
    assert_eq!(scene.log.lines().len(), 20);
}

pub async fn who_asks_is_told_why_there_is_no_answer(scene: Scene) {
    let host = both(&scene, |e| e.handle(refuse).retry(quick_retry())).await;
    let asked = host
        .bus()
        .request::<Answered>(Do { n: 7 })
        .within(LONG)
        .await;
    match asked {
        Err(RequestError::Failed(failed)) => {
            assert_eq!(failed.reason, "terminal");
            assert_eq!(failed.message_type, "test.do");
            assert!(failed.error.contains("7 cannot be"), "{}", failed.error);
        }
        other => panic!("a failure was answered {other:?}"),
    }
    assert_eq!(scene.dead_letters(1).await.len(), 1);
    stop(host).await;
}

/// Nothing is lost without a word: the answer is counted.
pub async fn an_answer_that_comes_too_late_is_counted(scene: Scene) {
    let host = both(&scene, |e| {
        e.handle(async |command: Do| {
            tokio::time::sleep(SHORT * 4).await;
            Answered { n: command.n }
        })
    })
    .await;
    let asked = host
        .bus()
        .request::<Answered>(Do { n: 1 })
        .within(SHORT)
        .await;
    match asked {
        Err(error @ RequestError::TimedOut { .. }) => {
            assert!(error.to_string().contains("within 100ms"), "{error}");
        }
        other => panic!("a slow answer was answered {other:?}"),
    }
    late_answers(&host).await;
    scene.quiet().await;
    stop(host).await;
}

/// An HTTP call that is made again: the command has its effect once, and both calls get its answer.
pub async fn a_question_that_is_asked_twice_is_answered_once(scene: Scene) {
    let host = both(&scene, |e| {
        e.handle(async |command: Do| {
            tokio::time::sleep(SHORT * 3).await;
            Answered { n: command.n }
        })
    })
    .await;
    let bus = host.bus();
    let identity = |key: &'static str| MessageId::derived(&["do", "ada", key]);
    let ask = |key| {
        bus.request::<Answered>(Do { n: 3 })
            .with_id(identity(key))
            .within(LONG)
    };
    let (first, again, other) = tokio::join!(ask("k-1"), ask("k-1"), ask("k-2"));
    for answer in [first, again, other] {
        assert_eq!(answer.expect("it is answered").n, 3);
    }
    scene.quiet().await;
    for key in ["k-1", "k-2"] {
        let of = HistoryOf::Message(identity(key));
        let handled = scene.admin().history(&of, Page::oldest(10)).await;
        let count = handled.expect("history is read").len();
        assert_eq!(count, 1, "{key} has one effect");
    }
    assert_eq!(host.counters().late_answers.get(), 0, "a second answer");
    stop(host).await;
}

pub async fn a_question_whose_answers_nobody_takes_is_not_asked(scene: Scene) {
    let host = scene.host("prices", |e| e.handle(answer)).await;
    let asked = host
        .bus()
        .request::<Answered>(Do { n: 1 })
        .within(LONG)
        .await;
    match asked {
        Err(RequestError::Bus(error @ BusError::NoAnswers { .. })) => {
            let error = error.to_string();
            assert!(error.contains("`test.answered`") && error.contains(".answers::<"));
        }
        other => panic!("a question without an endpoint for answers was answered {other:?}"),
    }
    scene.quiet().await;
    stop(host).await;
    assert!(scene.log.lines().is_empty());
}
