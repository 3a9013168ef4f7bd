//! A proxy before PostgreSQL that lets a test cut a connection at an exact commit call, refuse
//! connections, or swallow everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wire::{ASKS_FOR_TLS, Call, Frames, HAS_NO_TLS, Places, Tracker, write};

/// What is done with a commit call, after which the client's connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees it.
    BeforeServer,
    /// The server answers, and nobody hears it.
    BeforeAnswer,
    /// The client is cut off while the server is at it.
    Meanwhile,
    /// The server's process is stopped before it sees the call, and goes on when the test says so.
    FrozenBefore,
    /// The server's process is stopped while it is at the call.
    FrozenMeanwhile,
}

/// A test's say in what happens to commit calls.
pub trait Director: Send + Sync + 'static {
    /// Decides about a call, before the server has seen any of it.
    fn decide(&self, call: &Call) -> Option<Cut>;

    /// Waits for what has to happen before a server's process that was stopped goes on.
    fn while_frozen(&self, _call: Call) -> BoxFuture<'_, ()> {
        unreachable!("this test freezes nothing")
    }

    /// Looks at the database when the server is done with a call that was cut and the client knows
    /// of nothing yet.
    fn look(&self, call: Call, cut: Cut) -> BoxFuture<'_, ()>;
}

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Cuts what there is, and listens no more.
    Refuse,
    /// Passes nothing on, and says nothing of it.
    Swallow,
    /// As `Swallow` and for ever with the connections that there are; passes new ones on.
    Strand,
}

/// A running proxy, which ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// The mode that is in force.
    current: watch::Receiver<Mode>,
    accepted: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of its own, and passes on to this server.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(
        server: SocketAddr,
        places: Places,
        director: Option<Arc<dyn Director>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port can be listened on");
        let address = listener.local_addr().expect("it is bound");
        let (mode, modes) = watch::channel(Mode::Pass);
        let (in_force, current) = watch::channel(Mode::Pass);
        let accepted = Arc::new(AtomicU64::new(0));
        let cut = Arc::new(AtomicU64::new(0));
        let gate = Gate {
            server,
            places,
            director,
            modes,
            accepted: Arc::clone(&accepted),
            cut: Arc::clone(&cut),
        };
        let mut running = JoinSet::new();
        running.spawn(gate.run(address, listener, in_force));
        Self {
            address,
            mode,
            current,
            accepted,
            cut,
            _running: running,
        }
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the proxy does; from the return on it does so.
    ///
    /// # Panics
    /// When the proxy has ended.
    pub async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let mut current = self.current.clone();
        let is_in_force = current.wait_for(|current| *current == mode).await;
        drop(is_in_force.expect("the proxy runs"));
    }

    /// Counts the connections that were made.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Counts the connections that were cut because it refuses all.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::SeqCst)
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Gate {
    server: SocketAddr,
    places: Places,
    director: Option<Arc<dyn Director>>,
    modes: watch::Receiver<Mode>,
    accepted: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
}

impl Gate {
    async fn run(mut self, address: SocketAddr, first: TcpListener, in_force: watch::Sender<Mode>) {
        let mut connections = JoinSet::new();
        let mut listener = Some(first);
        loop {
            let mode = *self.modes.borrow_and_update();
            if mode == Mode::Refuse {
                drop(listener.take());
                // Those that have ended by themselves are not among what is cut.
                while connections.try_join_next().is_some() {}
                self.cut
                    .fetch_add(connections.len() as u64, Ordering::SeqCst);
                connections.shutdown().await;
                in_force.send_replace(mode);
                let changed = self.modes.changed().await;
                if changed.is_err() {
                    return;
                }
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => TcpListener::bind(address)
                    .await
                    .expect("its own port is free"),
            };
            in_force.send_replace(mode);
            tokio::select! {
                accepted = open.accept() => {
                    let (client, _) = accepted.expect("a connection can be accepted");
                    self.accepted.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(self.clone().pass(client));
                }
                changed = self.modes.changed() => if changed.is_err() { return },
            }
            listener = Some(open);
        }
    }

    /// Passes one connection's frames on until either side ends it.
    async fn pass(mut self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.server).await else {
            return; // The client sees its connection closed.
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true)); // Only slower without.
        let (read, mut to_client) = client.into_split();
        let mut from_client = Frames::of_client(read);
        let (read, mut to_server) = server.into_split();
        let mut from_server = Frames::of_server(read);
        let mut tracker = Tracker::new(self.places);
        let mut held = Vec::new();
        let mut process = 0;
        let is_new = *self.modes.borrow() == Mode::Strand;
        loop {
            while let Some(frame) = from_server.next() {
                if frame[0] == b'K' {
                    process = i32::from_be_bytes(frame[5..9].try_into().expect("four bytes"));
                }
                if !write(&mut to_client, &frame).await {
                    return;
                }
            }
            while let Some(frame) = from_client.next() {
                if frame == ASKS_FOR_TLS {
                    if !write(&mut to_client, HAS_NO_TLS).await {
                        return;
                    }
                    continue;
                }
                let is_whole = tracker.see(&frame);
                held.extend(frame);
                if !is_whole {
                    continue;
                }
                if let Some((call, cut)) = self.decide(tracker.take_call()) {
                    let server = Server {
                        from: from_server,
                        to: to_server,
                        process,
                    };
                    return self.cut(call, cut, &held, server, to_client).await;
                }
                if !write(&mut to_server, &held).await {
                    return;
                }
                held.clear();
            }
            tokio::select! {
                is_open = from_client.fill() => if !is_open { return },
                is_open = from_server.fill() => if !is_open { return },
                changed = self.modes.changed() => if changed.is_err() { return },
            }
            self.while_swallowing(is_new).await;
        }
    }

    fn decide(&self, call: Option<Call>) -> Option<(Call, Cut)> {
        let call = call?;
        let cut = self.director.as_ref()?.decide(&call)?;
        Some((call, cut))
    }

    /// Says whether nothing of a connection is passed on. One that was made since is new.
    fn swallows(&self, is_new: bool) -> bool {
        match *self.modes.borrow() {
            Mode::Swallow => true,
            Mode::Strand => !is_new,
            Mode::Pass | Mode::Refuse => false,
        }
    }

    async fn while_swallowing(&mut self, is_new: bool) {
        while self.swallows(is_new) {
            if self.modes.changed().await.is_err() {
                return; // The proxy is about to end.
            }
        }
    }

    /// Ends a connection at one call. The client's side closes when `client` is dropped.
    async fn cut(
        &self,
        call: Call,
        cut: Cut,
        bytes: &[u8],
        mut server: Server,
        client: OwnedWriteHalf,
    ) {
        let Some(director) = &self.director else {
            return;
        };
        match cut {
            Cut::BeforeServer => {
                drop(server);
                director.look(call, cut).await;
                drop(client);
            }
            Cut::BeforeAnswer => {
                if server.answers(bytes).await {
                    director.look(call, cut).await;
                }
                drop(client);
            }
            Cut::Meanwhile => {
                // Closing the server's side now could take the call back.
                let is_sent = write(&mut server.to, bytes).await;
                drop(client);
                if is_sent && server.from.until_ready().await {
                    director.look(call, cut).await;
                }
            }
            Cut::FrozenBefore | Cut::FrozenMeanwhile => {
                let mut is_sent = false;
                if cut == Cut::FrozenMeanwhile {
                    is_sent = write(&mut server.to, bytes).await;
                    tokio::task::yield_now().await;
                }
                let stopped = Stopped::new(server.process);
                if cut == Cut::FrozenBefore {
                    is_sent = write(&mut server.to, bytes).await;
                }
                drop(client);
                director.while_frozen(call.clone()).await;
                drop(stopped);
                assert!(is_sent && server.from.until_ready().await, "it answers");
                director.look(call, cut).await;
            }
        }
    }
}

/// The server's side of a connection.
struct Server {
    from: Frames,
    to: OwnedWriteHalf,
    process: i32,
}

impl Server {
    /// Says whether it answers; one that is crashed meanwhile does not.
    async fn answers(&mut self, bytes: &[u8]) -> bool {
        write(&mut self.to, bytes).await && self.from.until_ready().await
    }
}

/// A process that is stopped until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(process: i32) -> Self {
        let process = Pid::from_raw(process).expect("a server's process has a number");
        kill_process(process, Signal::STOP).expect("the test found out that it may");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).expect("what was stopped can be told to go on");
    }
}
