//! Where the gateway decides: one task that writes the calls that wait, syncs, then answers them.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sagabus::Lifecycle;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::line::{self, Kind, Line};
use super::{Answer, Ask};

/// Every so many calls one fails before it did anything.
const STUMBLE_EVERY: u64 = 41;

/// How long a slow bank takes: longer than a customer waits.
const SLOW: Duration = Duration::from_secs(3);

/// Calls that share one sync; as many as one endpoint of the demo has in hand.
const CALLS_MAX: usize = 256;

/// The gateway's end of the counter. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Till {
    calls: mpsc::Sender<Call>,
    is_broken: Arc<AtomicBool>,
    call_count: Arc<AtomicU64>,
}

/// A call and who waits for its answer.
struct Call {
    ask: Ask,
    answer: oneshot::Sender<Answer>,
}

impl Till {
    /// Opens the file, reads what was decided before, and starts to decide.
    ///
    /// # Errors
    /// When the file cannot be used, or another process's gateway has it.
    pub(crate) async fn open(folder: &Path, lifecycle: &Lifecycle) -> Result<Self> {
        let path = line::file_in(folder);
        let shown = path.display();
        let open = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path);
        let file = open.with_context(|| format!("cannot write {shown}"))?;
        // Two gateways would each think a key new that the other has charged.
        file.try_lock().with_context(|| {
            format!("{shown} belongs to another process: is the demo, or its gateway, running?")
        })?;
        let (lines, bytes) = line::read(&path)?;
        // A torn last line was never answered, and must not run into the next one.
        file.set_len(bytes)
            .with_context(|| format!("cannot cut {shown}"))?;
        let mut file = File::from_std(file);
        file.seek(SeekFrom::End(0)).await?;
        let mut book = Book::default();
        lines.iter().for_each(|line| book.learn(line));
        let (calls, waiting) = mpsc::channel(CALLS_MAX);
        lifecycle.spawn(async move {
            if let Err(error) = run(file, book, waiting).await {
                // Whoever waits is told by the closed channel.
                eprintln!("the gateway cannot write its file any more: {error:#}");
            }
        });
        Ok(Self {
            calls,
            is_broken: Arc::default(),
            call_count: Arc::default(),
        })
    }

    /// Answers once the call is in the file and synced.
    ///
    /// # Errors
    /// When the file could not be written.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer> {
        if let Ask::Break(is_broken) = ask {
            self.is_broken.store(is_broken, Ordering::Relaxed);
        }
        if self.is_broken.load(Ordering::Relaxed) {
            return Ok(Answer::Down);
        }
        if matches!(ask, Ask::Break(_) | Ask::Look) {
            return Ok(Answer::Up);
        }
        let count = self.call_count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(STUMBLE_EVERY) {
            return Ok(Answer::Stumbled);
        }
        let (answer, answered) = oneshot::channel();
        let gone = || anyhow!("gateway has stopped");
        self.calls
            .send(Call { ask, answer })
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

async fn run(mut file: File, mut book: Book, mut waiting: mpsc::Receiver<Call>) -> Result<()> {
    let mut calls = Vec::with_capacity(CALLS_MAX);
    while waiting.recv_many(&mut calls, CALLS_MAX).await > 0 {
        let mut text = Vec::new();
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls.drain(..) {
            let Some((line, answer)) = book.decide(call.ask) else {
                continue;
            };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            book.learn(&line);
            answers.push((call.answer, answer));
        }
        file.write_all(&text).await?;
        file.sync_data().await?;
        for (waiting, answer) in answers {
            // Whoever gave up waiting asks again with the same key.
            let _ = waiting.send(answer);
        }
    }
    Ok(())
}

/// What has been decided, by key.
#[derive(Default)]
struct Book {
    decided: HashMap<String, (Kind, String)>,
    receipts: HashMap<String, i64>,
    receipt_count: u64,
}

impl Book {
    fn learn(&mut self, line: &Line) {
        match line.kind {
            Kind::Repeat => return,
            Kind::Charge => {
                self.receipt_count += 1;
                self.receipts.insert(line.note.clone(), line.cents);
            }
            Kind::Refund => self.receipt_count += 1,
            Kind::Decline | Kind::Pending => {}
        }
        self.decided
            .insert(line.key.clone(), (line.kind, line.note.clone()));
    }

    /// Decides a call: the line to write and the answer to give after it is on the disk.
    fn decide(&self, ask: Ask) -> Option<(Line, Answer)> {
        let (key, order, cents) = match &ask {
            Ask::Charge {
                key, order, cents, ..
            }
            | Ask::Refund {
                key, order, cents, ..
            } => (key.clone(), *order, *cents),
            Ask::Break(_) | Ask::Look => return None,
        };
        let (kind, note) = match self.decided.get(&key) {
            Some((Kind::Pending, _)) => (Kind::Charge, self.receipt()),
            Some((kind, note)) => {
                let line = Line {
                    kind: Kind::Repeat,
                    order,
                    cents,
                    key,
                    note: note.clone(),
                };
                return Some((line, answer(*kind, note.clone())));
            }
            None => self.decide_new(&ask),
        };
        let answer = answer(kind, note.clone());
        Some((
            Line {
                kind,
                order,
                cents,
                key,
                note,
            },
            answer,
        ))
    }

    fn decide_new(&self, ask: &Ask) -> (Kind, String) {
        match ask {
            Ask::Charge { card, .. } if card == Card::Empty.number() => {
                (Kind::Decline, "insufficient funds".to_owned())
            }
            Ask::Charge { card, .. } if card == Card::Slow.number() => {
                (Kind::Pending, "the bank takes its time".to_owned())
            }
            Ask::Refund { receipt, cents, .. } if self.receipts.get(receipt) != Some(cents) => {
                (Kind::Decline, format!("no charge {receipt} of this amount"))
            }
            Ask::Charge { .. } => (Kind::Charge, self.receipt()),
            // A second refund of one receipt is not refused: it is the ledger that must see it.
            _ => (Kind::Refund, self.receipt()),
        }
    }

    fn receipt(&self) -> String {
        format!("r-{:06}", self.receipt_count + 1)
    }
}

fn answer(kind: Kind, note: String) -> Answer {
    match kind {
        Kind::Charge | Kind::Refund | Kind::Repeat => Answer::Done { receipt: note },
        Kind::Decline => Answer::Declined { reason: note },
        Kind::Pending => Answer::Pending { wait: SLOW },
    }
}

/// The test cards that this gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Card {
    Good,
    /// Is declined.
    Empty,
    /// Is charged only when asked a second time, later than the customer waits.
    Slow,
}

impl Card {
    /// Returns the card's number.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::Good => "4242-4242",
            Self::Empty => "4000-9995",
            Self::Slow => "4000-3000",
        }
    }
}
