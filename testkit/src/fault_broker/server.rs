//! The broker's side: the in-memory broker behind a socket, with faults in between.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagabus_core::error::TransportError;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::transport::{Publication, Transport};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::faults::{Effect, FaultPlan};
use super::log::Published;
use super::session;
use super::wire::{Command, Response, Verdict};

/// How long an overtaken publication waits for the one that overtakes it.
const OVERTAKEN_MAX: Duration = Duration::from_millis(200);

/// A broker that listens on a port of this machine.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

impl Server {
    /// Listens on a port; 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let state = Arc::new(State::new());
        Ok(Self { listener, state })
    }

    /// Returns where it listens.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients until it is dropped.
    ///
    /// # Errors
    /// When the port cannot be listened on any more.
    pub async fn run(self) -> io::Result<()> {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted?;
                    sessions.spawn(session::serve(Arc::clone(&self.state), stream));
                }
                Some(_ended) = sessions.join_next() => {}
            }
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) broker: MemoryTransport,
    faults: Mutex<FaultPlan>,
    log: Mutex<Vec<Published>>,
    overtaken: Mutex<Vec<Publication>>,
    /// What was confirmed and is delivered later: outlives the session that brought it.
    later: Mutex<JoinSet<()>>,
    cuts: watch::Sender<u64>,
    /// Frames of clients until one is cut; 0 while none is to be.
    frames_left: AtomicU64,
    refuse_until: Mutex<Option<Instant>>,
}

/// What a publication leads to.
pub(super) enum Next {
    /// The client hears this.
    Confirm(Verdict),
    /// The client hears this, and then nothing more.
    ConfirmAndCut(Verdict),
    /// The client hears nothing more.
    Cut,
    /// The client hears nothing of this.
    Silence,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn new() -> Self {
        Self {
            broker: MemoryTransport::new(),
            faults: Mutex::default(),
            log: Mutex::default(),
            overtaken: Mutex::default(),
            later: Mutex::default(),
            cuts: watch::Sender::new(0),
            frames_left: AtomicU64::new(0),
            refuse_until: Mutex::default(),
        }
    }

    /// Changes when every connection is to be cut.
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    /// Says whether a client's connection ends with this frame, unread.
    pub(super) fn is_cut_now(&self) -> bool {
        let refuses = lock(&self.refuse_until).is_some_and(|until| Instant::now() < until);
        if refuses {
            lock(&self.faults).count("refuse");
            return true;
        }
        let count_down = |left: u64| left.checked_sub(1);
        let counted =
            self.frames_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down);
        if counted == Ok(1) {
            lock(&self.faults).count("cut_at_frame");
            return true;
        }
        false
    }

    /// Publishes, as well or as badly as it was told to.
    pub(super) async fn publish(self: &Arc<Self>, publication: Publication) -> Next {
        let effect = lock(&self.faults).decide(&publication.address);
        let next = match effect {
            Some(Effect::Nack) => Next::Confirm(Verdict::Nacked {
                text: "told to nack".to_owned(),
            }),
            Some(Effect::Return) => Next::Confirm(Verdict::Unroutable),
            Some(Effect::CutBeforeTaking) => Next::Cut,
            Some(Effect::Delay { ms }) => {
                self.deliver_later(publication.clone(), Duration::from_millis(ms));
                Next::Confirm(Verdict::Taken)
            }
            Some(Effect::Overtake) => {
                lock(&self.overtaken).push(publication.clone());
                self.release_overtaken_later();
                Next::Confirm(Verdict::Taken)
            }
            None => Next::Confirm(self.take(&publication).await),
            Some(Effect::Duplicate) => {
                self.take(&publication).await;
                Next::Confirm(self.take(&publication).await)
            }
            Some(Effect::CutBeforeConfirm) => {
                self.take(&publication).await;
                Next::Cut
            }
            Some(Effect::CutAfterConfirm) => Next::ConfirmAndCut(self.take(&publication).await),
            Some(Effect::Withhold) => {
                self.take(&publication).await;
                Next::Silence
            }
        };
        let is_taken = match (&next, effect) {
            (Next::Confirm(verdict) | Next::ConfirmAndCut(verdict), _) => {
                *verdict == Verdict::Taken
            }
            (Next::Cut | Next::Silence, effect) => effect != Some(Effect::CutBeforeTaking),
        };
        lock(&self.log).push(Published::new(&publication, is_taken, effect));
        next
    }

    /// Hands a publication to the endpoints that take it, and after it those that it overtakes.
    async fn take(&self, publication: &Publication) -> Verdict {
        let verdict = self.hand_over(publication).await;
        self.release_overtaken().await;
        verdict
    }

    async fn hand_over(&self, publication: &Publication) -> Verdict {
        let window = std::slice::from_ref(publication);
        match self.broker.publish(window).await.pop() {
            Some(Ok(())) => Verdict::Taken,
            Some(Err(TransportError::Unroutable { .. })) => Verdict::Unroutable,
            Some(Err(error)) => Verdict::Nacked {
                text: error.to_string(),
            },
            None => Verdict::Nacked {
                text: "no answer".to_owned(),
            },
        }
    }

    async fn release_overtaken(&self) {
        let overtaken = std::mem::take(&mut *lock(&self.overtaken));
        for publication in overtaken {
            self.hand_over(&publication).await;
        }
    }

    fn release_overtaken_later(self: &Arc<Self>) {
        let state = Arc::clone(self);
        lock(&self.later).spawn(async move {
            tokio::time::sleep(OVERTAKEN_MAX).await;
            state.release_overtaken().await;
        });
    }

    fn deliver_later(self: &Arc<Self>, publication: Publication, after: Duration) {
        let state = Arc::clone(self);
        lock(&self.later).spawn(async move {
            tokio::time::sleep(after).await;
            state.hand_over(&publication).await;
        });
    }

    /// Does what a test asks.
    pub(super) fn command(&self, command: Command) -> Response {
        match command {
            Command::Inject { fault } => lock(&self.faults).inject(fault),
            Command::Clear => {
                lock(&self.faults).clear();
                self.frames_left.store(0, Ordering::Relaxed);
                *lock(&self.refuse_until) = None;
            }
            Command::CutConnections => {
                lock(&self.faults).count("cut_connections");
                self.cuts.send_modify(|count| *count += 1);
            }
            Command::CutAtFrame { frame } => self.frames_left.store(frame, Ordering::Relaxed),
            Command::RefuseFor { ms } => {
                *lock(&self.refuse_until) = Some(Instant::now() + Duration::from_millis(ms));
                self.cuts.send_modify(|count| *count += 1);
            }
            Command::Log => {
                let published = lock(&self.log).clone();
                return Response::Log { published };
            }
            Command::Fired => {
                let counts = lock(&self.faults).fired();
                return Response::Fired { counts };
            }
            Command::Depth { endpoint } => {
                let (waiting, in_hand) = self.broker.depth(&endpoint);
                return Response::Depth { waiting, in_hand };
            }
        }
        Response::Done
    }
}
