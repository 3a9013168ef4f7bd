//! One run: two processes on one database, a client, a storm, then quiet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::{Lifecycle, MessageId, RunningHost, chance};
use tokio::time::{Instant, sleep, timeout};

use crate::fault::{Fault, Tally};
use crate::follow::{Followed, follow};
use crate::guard::Guard;
use crate::judge;
use crate::link::Link;
use crate::messages::StartTransfer;
use crate::service::{self, LEASE, Site};
use crate::store::Database;
use crate::world::World;

/// Processes of the service.
const HOSTS: usize = 2;
/// Transfers in one run.
const TRANSFERS: i64 = 10;
/// How long things go wrong.
const STORM: Duration = Duration::from_millis(2500);
/// Within this all must be done. A row that met a refusal of the broker waits for seconds.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// How long the client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);
/// Within this a host that is told to stop has to be gone.
const DEADLINE: Duration = Duration::from_millis(400);

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The seed.
    pub seed: u64,
    /// What all its events sum up to: the same in every run of this seed.
    pub trace: u64,
    /// How many events there were.
    pub events: u64,
    /// How often each fault happened.
    pub tally: Tally,
    /// What is wrong; nothing where all is well.
    pub wrongs: Vec<String>,
    /// What came of following it through the models.
    pub followed: Followed,
}

impl Ran {
    /// Says whether nothing is wrong, and each step was one of the models.
    pub fn is_good(&self) -> bool {
        self.wrongs.is_empty() && self.followed.stray.is_none()
    }
}

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// A guard that is switched off.
    pub without: Option<Guard>,
    /// Every event is printed.
    pub is_shown: bool,
}

/// Runs one seed, on this thread, in simulated time.
///
/// # Panics
/// When the system has no runtime to give.
pub fn run(seed: u64, how: How) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime of one thread needs nothing of the system");
    let ran = runtime.block_on(simulate(seed, how));
    drop(runtime);
    chance::seed(None);
    ran
}

async fn simulate(seed: u64, how: How) -> Ran {
    chance::seed(Some(seed));
    let world = World::new(seed, how.without, how.is_shown);
    let tasks = Lifecycle::new();
    let has_broker = world.below(2) == 0;
    let site = Site {
        database: Database::new(&tasks),
        broker: has_broker.then(MemoryTransport::new),
    };
    let mut hosts = Vec::new();
    for number in 0..HOSTS {
        hosts.push(Process::new(&world, &site, number));
    }
    for host in &mut hosts {
        host.ensure_up().await;
    }
    world.lock().is_stormy = true;
    let over_at = Instant::now() + STORM;
    let mut client = Client::new();
    while Instant::now() < over_at || !client.is_done() {
        if Instant::now() < over_at {
            strike(&world, &mut hosts).await;
        } else {
            world.lock().is_stormy = false;
        }
        for host in &mut hosts {
            host.ensure_up().await;
        }
        client.place(&world, &hosts).await;
        sleep(world.millis(1, 120)).await;
    }
    world.lock().is_stormy = false;
    world.note(format_args!("the storm is over"));
    settle(&world, &site, &mut hosts).await;
    let wrongs = judge::judge(&world, &site, TRANSFERS).await;
    let inner = world.lock();
    let followed = follow(&inner.seen, &inner.endpoints, wrongs.is_empty());
    let (trace, events) = inner.trace.sum();
    Ran {
        seed,
        trace,
        events,
        tally: inner.tally.clone(),
        wrongs,
        followed,
    }
}

/// Waits until everything is done, or has had long enough.
async fn settle(world: &Arc<World>, site: &Site, hosts: &mut [Process]) {
    let deadline = Instant::now() + QUIET_WITHIN;
    while Instant::now() < deadline {
        for host in hosts.iter_mut() {
            host.ensure_up().await;
        }
        if judge::is_quiet(site, TRANSFERS).await {
            // What comes late, such as a copy, comes now.
            sleep(LEASE * 2).await;
            if judge::is_quiet(site, TRANSFERS).await {
                world.note(format_args!("all is quiet"));
                return;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Does something to one process, or not.
async fn strike(world: &Arc<World>, hosts: &mut [Process]) {
    let which = usize::try_from(world.below(HOSTS as u64)).unwrap_or_default();
    let Some(host) = hosts.get_mut(which) else {
        return;
    };
    match world.below(12) {
        0 => host.link.kill(Fault::Killed),
        1 => {
            let until = Instant::now() + world.millis(1000, 2300);
            host.link.freeze(until);
        }
        2 if host.link.cut() > 0 => world.count(Fault::ConnectionLost),
        3 => host.stop().await,
        4 => {
            let hours = if world.below(2) == 0 { -1 } else { 1 };
            world.count(Fault::ClockStepped);
            world.note(format_args!("every machine's clock steps by {hours} h"));
            chance::step_clock(hours * 3_600_000_000);
        }
        _ => {}
    }
}

/// One process, started again whenever it is gone.
struct Process {
    world: Arc<World>,
    site: Site,
    number: usize,
    starts: u32,
    link: Arc<Link>,
    running: Option<RunningHost>,
}

impl Process {
    fn new(world: &Arc<World>, site: &Site, number: usize) -> Self {
        Self {
            world: Arc::clone(world),
            site: site.clone(),
            number,
            starts: 0,
            link: Link::new(world, format!("host-{number}")),
            running: None,
        }
    }

    /// Starts it where it is gone.
    async fn ensure_up(&mut self) {
        if self.running.is_some() && !self.link.is_dead() {
            return;
        }
        self.starts += 1;
        let name = format!("host-{}-{}", self.number, self.starts);
        self.link = Link::new(&self.world, name);
        let starting = service::start(&self.site, &self.link);
        self.running = match timeout(PATIENCE, starting).await {
            Ok(Ok(running)) => Some(running),
            Ok(Err(error)) => {
                self.world.note(format_args!("no start: {error}"));
                None
            }
            Err(_) => None,
        };
        if self.running.is_none() {
            // Whatever of it runs is cut off: a process that did not come up is ended.
            self.link.kill(Fault::Killed);
        }
    }

    /// Tells it to stop, and ends it where it does not in time.
    async fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        self.world
            .note(format_args!("{} is told to stop", self.link.name));
        let stopping = running.stop(DEADLINE);
        if timeout(DEADLINE * 3, stopping).await.is_err() {
            self.link.kill(Fault::Killed);
        } else {
            self.world.count(Fault::Stopped);
            // A process that is gone has no connection.
            self.link.end();
        }
    }
}

/// The client: places transfers, each under one identity until it is told that it is there.
struct Client(VecDeque<(i64, MessageId)>);

impl Client {
    fn new() -> Self {
        Self((0..TRANSFERS).map(|id| (id, MessageId::new())).collect())
    }

    fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Places a few at once.
    async fn place(&mut self, world: &Arc<World>, hosts: &[Process]) {
        let count = usize::try_from(1 + world.below(4)).unwrap_or_default();
        let count = count.min(self.0.len());
        let now: Vec<_> = self.0.drain(..count).collect();
        let sending = now.into_iter().map(async |(id, message)| {
            let is_placed = send(world, hosts, id, message).await;
            world.note(format_args!("transfer {id} is placed: {is_placed}"));
            (!is_placed || world.happens(Fault::SentAgain, 200)).then_some((id, message))
        });
        let again = join_all(sending).await;
        self.0.extend(again.into_iter().flatten());
    }
}

/// Sends one by some process; says whether it is known to be there.
async fn send(world: &World, hosts: &[Process], id: i64, message: MessageId) -> bool {
    let which = usize::try_from(world.below(HOSTS as u64)).unwrap_or_default();
    let Some(running) = hosts.get(which).and_then(|host| host.running.as_ref()) else {
        return false;
    };
    let bus = running.bus();
    let sending = async { bus.send(StartTransfer { id }).with_id(message).await };
    timeout(PATIENCE, sending)
        .await
        .is_ok_and(|sent| sent.is_ok())
}
