//! Asks the store once for all messages that wait: known? which instance? key blocked?
//!
//! A call takes whatever arrived while the previous one was under way: no linger, no tuning.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::backoff::Backoff;
use crate::lifecycle::Lifecycle;
use crate::store::{Answer, Question, Store};

/// Questions in one call at most: as many as a commit group has units, so that both coalescers
/// keep step.
const QUESTIONS_MAX: usize = 128;

/// Questions that may wait. Every asking message holds a permit of its endpoint, so this is only a
/// back-stop: eight endpoints with the default of 256 permits each.
const WAITING_MAX: usize = 2048;

/// Asks questions of the loader. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoaderHandle {
    waiting: mpsc::Sender<Waiting>,
}

type Waiting = (Question, oneshot::Sender<Answer>);

impl LoaderHandle {
    /// Returns what the store knows; `None` when the host was forced to stop first.
    ///
    /// Waits for as long as the database cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: an unread answer is dropped.
    pub async fn ask(&self, question: Question) -> Option<Answer> {
        if question == Question::default() {
            return Some(Answer::default());
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.send((question, answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Starts the loader on `lifecycle`; it ends when the last handle is dropped.
pub fn start(store: Arc<dyn Store>, lifecycle: &Lifecycle) -> LoaderHandle {
    let (waiting, queue) = mpsc::channel(WAITING_MAX);
    lifecycle.spawn(run(store, queue));
    LoaderHandle { waiting }
}

async fn run(store: Arc<dyn Store>, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(QUESTIONS_MAX);
    while queue.recv_many(&mut batch, QUESTIONS_MAX).await > 0 {
        let (questions, askers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let answers = load(&*store, &questions).await;
        for (asker, answer) in askers.into_iter().zip(answers) {
            let _ = asker.send(answer); // A message whose task is gone needs no answer.
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
