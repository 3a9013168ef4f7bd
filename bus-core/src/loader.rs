//! Asks the store once for all messages that wait: known? which instance? key blocked?
//!
//! A call takes whatever arrived while the previous one was under way. Only where handlers have
//! enough to do without it does it wait a moment for company: nobody gets his answer later than he
//! can use it, and a full endpoint costs a call for many messages and not one for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::backoff::Backoff;
use crate::lifecycle::Lifecycle;
use crate::store::{Answer, Question, Store};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::time::{Instant, timeout_at};

/// Questions in one call at most: as many as a commit group has units, so that both coalescers
/// keep step.
const QUESTIONS_MAX: usize = 128;

/// Questions that may wait. Every asking message holds a permit of its endpoint, so this is only a
/// back-stop: eight endpoints with the default of 256 permits each.
const WAITING_MAX: usize = 2048;

/// Messages with an answer, still with their handlers, that keep a host busy without more.
const BUSY: usize = 64;

/// A busy host's questions are worth a call when they are this many ..
const COMPANY: usize = 16;

/// .. or when they have waited for this long.
const COMPANY_WAIT: Duration = Duration::from_millis(2);

/// Asks questions of the loader. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoaderHandle {
    waiting: mpsc::Sender<Waiting>,
    answered: Arc<AtomicUsize>,
}

/// What the store knew, for as long as a message is tried with it.
#[derive(Debug)]
pub struct Loaded {
    /// What the store knew.
    pub answer: Answer,
    /// To be kept while the message is tried with it.
    pub in_use: InUse,
}

/// Counts a message as answered until it is dropped.
#[derive(Debug)]
pub struct InUse(Arc<AtomicUsize>);

impl InUse {
    fn begin(answered: &Arc<AtomicUsize>) -> Self {
        answered.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(answered))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Waiting = (Question, oneshot::Sender<Answer>);

impl LoaderHandle {
    /// Returns what the store knows; `None` when the host was forced to stop first.
    ///
    /// Waits for as long as the database cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: an unread answer is dropped.
    pub async fn ask(&self, question: &Question) -> Option<Loaded> {
        if *question == Question::default() {
            return Some(self.loaded(Answer::default()));
        }
        let place = self.waiting.reserve().await.ok()?;
        let (answer, answered) = oneshot::channel();
        place.send((question.clone(), answer));
        answered.await.ok().map(|answer| self.loaded(answer))
    }

    fn loaded(&self, answer: Answer) -> Loaded {
        Loaded {
            answer,
            in_use: InUse::begin(&self.answered),
        }
    }
}

/// Starts the loader on `lifecycle`; it ends when the last handle is dropped.
pub fn start(store: Arc<dyn Store>, lifecycle: &Lifecycle) -> LoaderHandle {
    let (waiting, queue) = mpsc::channel(WAITING_MAX);
    let answered = Arc::default();
    lifecycle.spawn(run(store, queue, Arc::clone(&answered)));
    LoaderHandle { waiting, answered }
}

async fn run(
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Waiting>,
    answered: Arc<AtomicUsize>,
) {
    let mut batch = Vec::with_capacity(QUESTIONS_MAX);
    while queue.recv_many(&mut batch, QUESTIONS_MAX).await > 0 {
        gather(&mut batch, &mut queue, &answered).await;
        let (questions, askers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let answers = load(&*store, &questions).await;
        for (asker, answer) in askers.into_iter().zip(answers) {
            let _ = asker.send(answer); // A message whose task is gone needs no answer.
        }
    }
}

/// Waits for company while handlers have enough to do.
async fn gather(
    batch: &mut Vec<Waiting>,
    queue: &mut mpsc::Receiver<Waiting>,
    answered: &AtomicUsize,
) {
    let until = Instant::now() + COMPANY_WAIT;
    while batch.len() < COMPANY && answered.load(Ordering::Relaxed) >= BUSY {
        let room = QUESTIONS_MAX - batch.len();
        match timeout_at(until, queue.recv_many(batch, room)).await {
            Ok(more) if more > 0 => {}
            _ => return,
        }
    }
}

/// Asks until the database answers.
async fn load(store: &dyn Store, questions: &[Question]) -> Vec<Answer> {
    let mut backoff = Backoff::new("load");
    loop {
        match store.load(questions).await {
            Ok(answers) => {
                backoff.ended();
                return answers;
            }
            Err(error) => backoff.failed(&error).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::endpoint::EndpointId;
    use crate::error::StoreError;
    use crate::id::MessageId;
    use crate::scripted::{KNOWING, Scripted};

    fn question() -> Waiting {
        (Question::default(), oneshot::channel().0)
    }

    /// Returns how many questions go together, and after how long, where one is there, and another
    /// one comes every half millisecond.
    async fn gathered(answered: usize) -> (usize, Duration) {
        let (sender, mut queue) = mpsc::channel(WAITING_MAX);
        let mut beat = tokio::time::interval(Duration::from_micros(500));
        beat.tick().await; // The first one is at once.
        let asking = async move {
            loop {
                beat.tick().await;
                if sender.send(question()).await.is_err() {
                    return;
                }
            }
        };
        let (begun, mut batch) = (Instant::now(), vec![question()]);
        let answered = AtomicUsize::new(answered);
        tokio::select! {
            () = gather(&mut batch, &mut queue, &answered) => {}
            () = asking => {}
        }
        (batch.len(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_with_little_to_do_asks_at_once() {
        assert_eq!(gathered(BUSY - 1).await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_host_waits_for_company_but_not_for_long() {
        let (count, waited) = gathered(BUSY).await;
        assert!(count > 1 && count < COMPANY, "{count} went together");
        assert!(
            waited >= COMPANY_WAIT && waited <= 2 * COMPANY_WAIT,
            "{waited:?}"
        );
    }

    /// Returns how many questions go together, and after how long, where so many are taken and so
    /// many more wait.
    async fn gathered_of(taken: usize, more: usize, is_closed: bool) -> (usize, Duration) {
        let (sender, mut queue) = mpsc::channel(WAITING_MAX);
        for _ in 0..more {
            sender.try_send(question()).expect("there is room");
        }
        let sender = (!is_closed).then_some(sender);
        let mut batch: Vec<_> = (0..taken).map(|_| question()).collect();
        let begun = Instant::now();
        gather(&mut batch, &mut queue, &AtomicUsize::new(BUSY)).await;
        drop(sender);
        (batch.len(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn enough_company_is_not_waited_for_and_no_call_is_too_large() {
        assert_eq!(
            gathered_of(COMPANY, 1, false).await,
            (COMPANY, Duration::ZERO)
        );
        let all = gathered_of(COMPANY - 1, 2 * QUESTIONS_MAX, false).await;
        assert_eq!(all, (QUESTIONS_MAX, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_when_nobody_can_come() {
        assert_eq!(gathered_of(1, 2, true).await, (3, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_counts_as_answered_until_it_is_tried() {
        let answered = Arc::new(AtomicUsize::new(0));
        let first = InUse::begin(&answered);
        let second = InUse::begin(&answered);
        drop(first);
        assert_eq!(answered.load(Ordering::Relaxed), 1);
        drop(second);
        assert_eq!(answered.load(Ordering::Relaxed), 0);
    }

    /// Asks whether a message was taken over at an endpoint.
    fn asking(endpoint: EndpointId) -> Question {
        Question {
            taken_over: Some((endpoint, MessageId::new())),
            ..Question::default()
        }
    }

    #[tokio::test]
    async fn all_who_wait_are_answered_by_one_call_each_with_its_own() {
        let store = Arc::new(Scripted::default());
        let lifecycle = Lifecycle::new();
        let loader = start(Arc::clone(&store) as Arc<dyn Store>, &lifecycle);
        let questions = [KNOWING, EndpointId(1), KNOWING].map(asking);
        let answers = join_all(questions.iter().map(|one| loader.ask(one))).await;
        let known = answers.iter().flatten().map(|one| one.answer.is_taken_over);
        assert_eq!(known.collect::<Vec<_>>(), [true, false, true]);
        // What asks nothing costs no call.
        let nothing = loader.ask(&Question::default()).await.expect("an answer");
        assert_eq!(nothing.answer, Answer::default());
        assert_eq!(store.asked(), [3]);
        assert_eq!(loader.answered.load(Ordering::Relaxed), 4);
        drop((answers, nothing, loader));
        assert!(lifecycle.stop(Duration::from_secs(10)).await, "it ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_is_asked_until_it_answers() {
        let away = || StoreError::Unavailable("it is away".into());
        let store = Arc::new(Scripted::saying([away(), away()]));
        let loader = start(Arc::clone(&store) as Arc<dyn Store>, &Lifecycle::new());
        let loaded = loader.ask(&asking(KNOWING)).await.expect("an answer");
        assert!(loaded.answer.is_taken_over);
        assert_eq!(store.asked(), [1, 1, 1]);
    }
}
