//! A proxy before a RabbitMQ broker that reads AMQP's frames, so that a test can cut a connection exactly
//! between a publication and its confirm, lose an ack, or let both sides wait for ever.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::mishap::{Mishap, Mishaps};
use crate::transport::Breakable;

/// `basic.publish`, `basic.ack` and `basic.nack`, as class and method.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const ACK: [u8; 4] = [0, 60, 0, 80];
const NACK: [u8; 4] = [0, 60, 0, 120];

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Takes no connection.
    Refuse,
    /// Passes nothing on in either direction, and says nothing of it.
    Swallow,
}

/// A running proxy, which ends when this is dropped.
pub struct AmqpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    halves: watch::Sender<u64>,
    /// Cut before the confirm of the next publication to this exchange.
    unconfirmed: Mutex<Option<String>>,
    /// How many frames of the server the next connection gets before it is cut.
    brief: Mutex<Option<u32>>,
    /// Acks of clients to lose, each with its connection.
    lost_acks: AtomicU64,
    fired: AtomicU64,
    mishaps: Option<Arc<dyn Mishaps>>,
}

impl AmqpProxy {
    /// Listens on a port of its own, and passes on to the server that a URL names.
    ///
    /// # Panics
    /// When it names none, or no port is free.
    pub async fn before(url: &str) -> Self {
        let mut place = authority(url);
        if !place.contains(':') {
            place.push_str(":5672");
        }
        let found = tokio::net::lookup_host(place).await;
        let mut found = found.expect("the URL names a host");
        Self::start(found.next().expect("it has an address")).await
    }

    /// Listens on a port of its own, and passes on to this server.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(server: SocketAddr) -> Self {
        Self::start_with(server, None).await
    }

    /// Does the same, and lets somebody decide about publications.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start_with(server: SocketAddr, mishaps: Option<Arc<dyn Mishaps>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port can be listened on");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            halves: watch::Sender::new(0),
            unconfirmed: Mutex::default(),
            brief: Mutex::default(),
            lost_acks: AtomicU64::new(0),
            fired: AtomicU64::new(0),
            mishaps,
        });
        let mut running = JoinSet::new();
        running.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _running: running,
        }
    }

    /// Rewrites the URL of the server to go through here.
    ///
    /// # Panics
    /// When it is no URL.
    pub fn url(&self, url: &str) -> String {
        let place = authority(url);
        url.replacen(&place, &self.address.to_string(), 1)
    }

    /// Leads to another server, and cuts the connections that there are: what stands before a
    /// cluster does so when a node is lost.
    pub fn lead_to(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
        self.cut();
    }

    /// Changes what is done with connections.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Cuts every connection that there is.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Closes the server's side of every connection that there is, and leaves the client's side open:
    /// nothing that the client says is heard any more, and nothing tells it so. New connections are
    /// whole.
    pub fn leave_half_open(&self) {
        self.shared.halves.send_modify(|count| *count += 1);
    }

    /// Loses the next acks of clients, each together with its connection.
    pub fn lose_acks(&self, count: u64) {
        self.shared.lost_acks.store(count, Ordering::SeqCst);
    }

    /// Cuts the next connection when it has had this many frames of the server: while it is made,
    /// or soon after.
    pub fn cut_next_after(&self, frames: u32) {
        *lock(&self.shared.brief) = Some(frames);
    }

    /// Counts the faults that happened, cuts on command aside.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::SeqCst)
    }
}

/// Host and port of a URL.
///
/// # Panics
/// When it is no URL.
pub fn authority(url: &str) -> String {
    let rest = url.split_once("://").expect("a URL has a scheme").1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    rest.split(['/', '?']).next().unwrap_or_default().to_owned()
}

impl Breakable for AmqpProxy {
    fn cut_connections(&self) -> BoxFuture<'_, ()> {
        self.cut();
        std::future::ready(()).boxed()
    }

    fn nack<'a>(&'a self, _: &'a str, _: u32, _: u32) -> BoxFuture<'a, bool> {
        std::future::ready(false).boxed()
    }

    fn cut_before_confirm<'a>(&'a self, address: &'a str) -> BoxFuture<'a, bool> {
        *lock(&self.shared.unconfirmed) = Some(address.to_owned());
        std::future::ready(true).boxed()
    }
}

impl std::fmt::Debug for AmqpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpProxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        if *shared.mode.borrow() == Mode::Refuse {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            tokio::select! {
                () = pass(client, &shared) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Passes frames on until one side ends or a fault strikes; then both are cut.
async fn pass(client: TcpStream, shared: &Shared) {
    let server = *lock(&shared.server);
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // The channel whose next confirm must not be heard.
    let deaf = Mutex::new(None);
    let open = Mutex::default();
    let mut halves = shared.halves.subscribe();
    tokio::select! {
        () = requests(&mut from_client, &mut to_server, shared, (&deaf, &open)) => return,
        () = answers(&mut from_server, &mut to_client, shared, (&deaf, &open)) => return,
        _ = halves.changed() => {}
    }
    drop((from_server, to_server));
    // Until the client gives up.
    while read(&mut from_client).await.is_some() {}
}

/// What both directions of a connection know: a channel that must hear nothing, and publications.
type Known<'a> = (&'a Mutex<Option<[u8; 2]>>, &'a Mutex<Open>);

/// Publications of one connection, by channel.
#[derive(Default)]
struct Open {
    /// How many there were, and up to which they are confirmed.
    channels: HashMap<[u8; 2], (u64, u64)>,
    /// What happens when one of them is confirmed.
    marked: Option<([u8; 2], u64, Mishap)>,
}

impl Open {
    /// Notes a publication; returns its number, and whether one before it is not confirmed.
    fn publish(&mut self, channel: [u8; 2]) -> (u64, bool) {
        let (count, confirmed) = self.channels.entry(channel).or_default();
        *count += 1;
        (*count, *confirmed + 1 < *count)
    }

    /// Notes a confirm; returns what happens then.
    fn confirm(&mut self, frame: &[u8]) -> Option<Mishap> {
        let channel = [frame[1], frame[2]];
        let number = u64::from_be_bytes(frame.get(11..19)?.try_into().ok()?);
        let is_multiple = frame.get(19).is_some_and(|bits| bits & 1 == 1);
        let (_, confirmed) = self.channels.entry(channel).or_default();
        *confirmed = number.max(*confirmed);
        let (marked, at, mishap) = self.marked?;
        let is_it = marked == channel && (number == at || is_multiple && number > at);
        is_it.then_some(mishap)
    }
}

async fn requests(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    (deaf, open): Known<'_>,
) {
    let mut greeting = [0; 8];
    if from.read_exact(&mut greeting).await.is_err() || to.write_all(&greeting).await.is_err() {
        return;
    }
    while let Some(frame) = read(from).await {
        if starts_with(&frame, PUBLISH) {
            deafen(&frame, shared, deaf);
            if !befall(&frame, shared, open).await {
                return;
            }
        }
        let is_lost = starts_with(&frame, ACK) && {
            let take = |left: u64| left.checked_sub(1);
            let lost = &shared.lost_acks;
            lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_ok()
        };
        if is_lost {
            shared.fired.fetch_add(1, Ordering::SeqCst);
            return;
        }
        pass_open(shared).await;
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn answers(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    (deaf, open): Known<'_>,
) {
    let mut brief = lock(&shared.brief).take();
    loop {
        if brief == Some(0) {
            shared.fired.fetch_add(1, Ordering::SeqCst);
            return;
        }
        brief = brief.map(|frames| frames - 1);
        let Some(frame) = read(from).await else {
            return;
        };
        let is_confirm = starts_with(&frame, ACK) || starts_with(&frame, NACK);
        if is_confirm && *lock(deaf) == Some([frame[1], frame[2]]) {
            shared.fired.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let mishap = is_confirm.then(|| lock(open).confirm(&frame)).flatten();
        if mishap == Some(Mishap::Unconfirmed) {
            return tell(shared, Mishap::Unconfirmed, false);
        }
        pass_open(shared).await;
        if to.write_all(&frame).await.is_err() {
            return;
        }
        if let Some(mishap) = mishap {
            return tell(shared, mishap, false);
        }
    }
}

/// Makes a publication's channel deaf, where that is wanted.
fn deafen(frame: &[u8], shared: &Shared, deaf: &Mutex<Option<[u8; 2]>>) {
    let mut wanted = lock(&shared.unconfirmed);
    let is_wanted = |wanted: &String| exchange(frame).ends_with(wanted.as_str());
    if wanted.as_ref().is_some_and(is_wanted) {
        *wanted = None;
        *lock(deaf) = Some([frame[1], frame[2]]);
    }
}

/// Lets happen to a publication what is decided; `false` when its connection is to be cut.
async fn befall(frame: &[u8], shared: &Shared, open: &Mutex<Open>) -> bool {
    let Some(mishaps) = &shared.mishaps else {
        return true;
    };
    let channel = [frame[1], frame[2]];
    let (number, is_within) = lock(open).publish(channel);
    match mishaps.decide(is_within) {
        Some(mishap @ Mishap::Lost) => {
            mishaps.happened(mishap, is_within);
            return false;
        }
        Some(mishap @ Mishap::Held(time)) => {
            tokio::time::sleep(time).await;
            mishaps.happened(mishap, is_within);
        }
        Some(mishap) => lock(open).marked = Some((channel, number, mishap)),
        None => {}
    }
    true
}

fn tell(shared: &Shared, mishap: Mishap, is_within: bool) {
    if let Some(mishaps) = &shared.mishaps {
        mishaps.happened(mishap, is_within);
    }
}

/// Waits while everything is swallowed.
async fn pass_open(shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // The proxy outlives its connections.
    let _ = mode.wait_for(|mode| *mode != Mode::Swallow).await;
}

/// Reads a frame: type, channel, size, payload, end.
async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).await.ok()?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
    frame.resize(7 + usize::try_from(size).ok()? + 1, 0);
    from.read_exact(&mut frame[7..]).await.ok()?;
    Some(frame)
}

fn starts_with(frame: &[u8], method: [u8; 4]) -> bool {
    frame[0] == 1 && frame.get(7..11) == Some(&method)
}

/// The exchange of a `basic.publish`: after two bytes of nothing, a short string.
fn exchange(frame: &[u8]) -> &str {
    let length = usize::from(frame[13]);
    std::str::from_utf8(&frame[14..14 + length]).unwrap_or_default()
}
