//! A proxy before a Kafka broker that reads as much of its protocol as it takes to know a
//! publication and its confirm when they pass.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::mishap::{Mishap, Mishaps};

/// The kind of request that publishes.
const PRODUCE: [u8; 2] = [0, 0];

/// A running proxy, which ends when this is dropped.
#[derive(Debug)]
pub struct KafkaProxy {
    address: SocketAddr,
    broker: watch::Sender<Option<SocketAddr>>,
    _running: JoinSet<()>,
}

impl KafkaProxy {
    /// Listens on a port of its own. The broker is named later, when it knows where its clients
    /// come in.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn listen(mishaps: Arc<dyn Mishaps>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port can be listened on");
        let address = listener.local_addr().expect("it is bound");
        let (broker, named) = watch::channel(None);
        let mut running = JoinSet::new();
        running.spawn(accept(listener, named, mishaps));
        Self {
            address,
            broker,
            _running: running,
        }
    }

    /// Passes on to this broker from now on.
    pub fn lead_to(&self, broker: SocketAddr) {
        self.broker.send_replace(Some(broker));
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    broker: watch::Receiver<Option<SocketAddr>>,
    mishaps: Arc<dyn Mishaps>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let named = *broker.borrow();
        if let Some(broker) = named {
            connections.spawn(pass(client, broker, Arc::clone(&mishaps)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Publications of one connection that are not confirmed.
#[derive(Default)]
struct Open {
    /// Numbers of requests.
    requests: Vec<[u8; 4]>,
    /// What happens when one of them is answered.
    marked: Option<([u8; 4], Mishap)>,
}

/// Passes frames on until one side ends or a mishap cuts both.
async fn pass(client: TcpStream, broker: SocketAddr, mishaps: Arc<dyn Mishaps>) {
    let Ok(server) = TcpStream::connect(broker).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // Only slower without.
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let open = Mutex::default();
    tokio::select! {
        () = requests(from_client, to_server, &open, &*mishaps) => {}
        () = answers(from_server, to_client, &open, &*mishaps) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    open: &Mutex<Open>,
    mishaps: &dyn Mishaps,
) {
    while let Some(frame) = read(&mut from).await {
        if let Some(number) = publication(&frame) {
            let is_within = !lock(open).requests.is_empty();
            match mishaps.decide(is_within) {
                Some(mishap @ Mishap::Lost) => return mishaps.happened(mishap, is_within),
                Some(mishap @ Mishap::Held(time)) => {
                    tokio::time::sleep(time).await;
                    mishaps.happened(mishap, is_within);
                }
                Some(mishap) => lock(open).marked = Some((number, mishap)),
                None => {}
            }
            lock(open).requests.push(number);
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    open: &Mutex<Open>,
    mishaps: &dyn Mishaps,
) {
    while let Some(frame) = read(&mut from).await {
        let number = frame.get(4..8).unwrap_or_default();
        let mishap = {
            let mut open = lock(open);
            open.requests.retain(|one| one != number);
            let is_marked = |(marked, _): &([u8; 4], Mishap)| marked == number;
            open.marked.filter(is_marked).map(|(_, mishap)| mishap)
        };
        let is_heard = mishap != Some(Mishap::Unconfirmed);
        if is_heard && to.write_all(&frame).await.is_err() {
            return;
        }
        if let Some(mishap) = mishap {
            return mishaps.happened(mishap, false);
        }
    }
}

/// The number of a request that publishes: behind its length, its kind and its version.
fn publication(frame: &[u8]) -> Option<[u8; 4]> {
    let is_produce = frame.get(4..6) == Some(&PRODUCE);
    let number = frame.get(8..12)?.try_into().ok()?;
    is_produce.then_some(number)
}

/// Reads a frame: its length, and so many bytes.
async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await.ok()?;
    let size = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + usize::try_from(size).ok()?, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
