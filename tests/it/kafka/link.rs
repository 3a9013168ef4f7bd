//! A link to a broker that can be cut, stopped and slowed by a test.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Cuts every connection there is, and accepts no more.
    Refuse,
    /// Passes on what clients say, and nothing of what the broker answers.
    LoseAnswers,
    /// Passes nothing on in either direction, and says nothing of it.
    Swallow,
}

/// A listener before a broker. It is gone when this is dropped.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    mode: Arc<watch::Sender<(Mode, u64)>>,
    halves: Arc<watch::Sender<u64>>,
    _running: JoinSet<()>,
}

impl Link {
    /// Listens; the broker may be started after this, when it is known where its clients come in.
    pub(crate) async fn listen() -> (Self, watch::Sender<Option<SocketAddr>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port can be listened on");
        let address = listener.local_addr().expect("it is bound");
        let mode = Arc::new(watch::Sender::new((Mode::Pass, 0)));
        let halves = Arc::new(watch::Sender::new(0));
        let (broker, where_it_is) = watch::channel(None);
        let mut running = JoinSet::new();
        let told = (Arc::clone(&mode), Arc::clone(&halves));
        running.spawn(accept(listener, where_it_is, told));
        let link = Self {
            address,
            mode,
            halves,
            _running: running,
        };
        (link, broker)
    }

    /// Changes what the link does to the connections that there are and to new ones.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_modify(|current| current.0 = mode);
    }

    /// Cuts every connection that there is; new ones are accepted.
    pub(crate) fn cut(&self) {
        self.mode.send_modify(|current| current.1 += 1);
    }

    /// Closes the broker's side of every connection that there is, and leaves the client's side
    /// open: nothing tells the client.
    pub(crate) fn leave_half_open(&self) {
        self.halves.send_modify(|count| *count += 1);
    }
}

/// What the connections of a link are told.
type Told = (Arc<watch::Sender<(Mode, u64)>>, Arc<watch::Sender<u64>>);

async fn accept(
    listener: TcpListener,
    broker: watch::Receiver<Option<SocketAddr>>,
    (mode, halves): Told,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a client can be accepted");
        let Some(broker) = *broker.borrow() else {
            continue; // The client sees its connection closed.
        };
        if mode.borrow().0 == Mode::Refuse {
            continue;
        }
        connections.spawn(pass(client, broker, mode.subscribe(), halves.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    client: TcpStream,
    broker: SocketAddr,
    mut mode: watch::Receiver<(Mode, u64)>,
    mut halves: watch::Receiver<u64>,
) {
    let Ok(server) = TcpStream::connect(broker).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let cuts = mode.borrow().1;
    let is_over = |(mode, now): &(Mode, u64)| *mode == Mode::Refuse || *now != cuts;
    let (asks, answers) = (mode.clone(), mode.clone());
    tokio::select! {
        () = copy(&mut from_client, &mut to_server, asks, &[Mode::Swallow]) => return,
        () = copy(
            &mut from_server,
            &mut to_client,
            answers,
            &[Mode::Swallow, Mode::LoseAnswers],
        ) => return,
        _ = mode.wait_for(is_over) => return,
        _ = halves.changed() => {}
    }
    drop((from_server, to_server));
    // Until the client gives up.
    let mut bytes = vec![0; 64 * 1024];
    while from_client
        .read(&mut bytes)
        .await
        .is_ok_and(|count| count > 0)
    {}
}

/// Passes bytes on; while `held` is in force, what comes is lost, and the connection with it when
/// that is over: no client could make sense of the rest.
async fn copy(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mode: watch::Receiver<(Mode, u64)>,
    held: &[Mode],
) {
    let mut bytes = vec![0; 64 * 1024];
    let mut has_lost = false;
    loop {
        let Ok(count) = from.read(&mut bytes).await else {
            return;
        };
        let is_held = held.contains(&mode.borrow().0);
        has_lost |= is_held && count > 0;
        if count == 0 || (has_lost && !is_held) {
            return;
        }
        if !is_held && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
