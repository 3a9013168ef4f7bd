//! The way in of one endpoint: rows and deliveries are decoded, find their lane, and run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;

use crate::endpoint::Order;
use crate::faults::{self, Point};
use crate::handling::{self, Endpoint};
use crate::inflow::Inflow;
use crate::intake::{Arrival, Intake, Work};
use crate::job::{self, Job};
use crate::lanes::Lanes;
use crate::lifecycle::Lifecycle;
use crate::merging::{self, MERGED_MAX};
use crate::transport::Delivery;
use crate::transports::TransportName;
use crate::unit_of_work::{Settle, Start};

/// Separates kind and key in a lane's name; no kind may contain it.
const LANE_SEPARATOR: &str = "\u{1f}";

/// Runs an endpoint until it is told to drain and everything in hand is settled.
pub(crate) async fn run(
    endpoint: Arc<Endpoint>,
    intake: Intake,
    mut works: mpsc::UnboundedReceiver<Work>,
) {
    // Unbounded, because every lane that is left holds one of the endpoint's places.
    let (left, mut leaving) = mpsc::unbounded_channel::<Option<String>>();
    let mut receiver = Receiver {
        endpoint,
        left,
        lanes: Lanes::new(),
        running: 0,
    };
    let lifecycle = receiver.endpoint.lifecycle.clone();
    let mut is_draining = false;
    while !is_draining || receiver.running > 0 {
        tokio::select! {
            biased;
            Some(lane) = leaving.recv() => receiver.leave(lane),
            Some(work) = works.recv() => receiver.accept(work, is_draining).await,
            () = lifecycle.draining(), if !is_draining => {
                is_draining = true;
                intake.close();
                receiver.give_back_waiting().await;
            }
        }
    }
    // A commit under way may still fill a place that it took before.
    while let Some(work) = intake.last(&mut works).await {
        receiver.give_back(work).await;
    }
}

/// Lets a broker's deliveries into an endpoint, as many as it has places for and while the database
/// has not taken over too many, until it is told to drain.
pub(crate) async fn receive(
    intake: Intake,
    inflow: Arc<Inflow>,
    transport: TransportName,
    mut deliveries: BoxStream<'static, Delivery>,
    lifecycle: Lifecycle,
) {
    while inflow.wait(&lifecycle).await.is_some() {
        // The message comes first: a place that waits for one would be lost to the endpoint's rows.
        let arrived = async {
            let mut delivery = deliveries.next().await?;
            transport.localise(&mut delivery.envelope.headers);
            let slot = intake.reserve_one().await?;
            Some((slot, delivery))
        };
        tokio::select! {
            biased;
            () = lifecycle.draining() => return,
            arrived = arrived => match arrived {
                Some((slot, delivery)) => slot.fill_delivery(delivery),
                None => return,
            },
        }
    }
}

struct Receiver {
    endpoint: Arc<Endpoint>,
    left: mpsc::UnboundedSender<Option<String>>,
    lanes: Lanes<Job>,
    running: usize,
}

impl Receiver {
    async fn accept(&mut self, work: Work, is_draining: bool) {
        faults::at(Point::Received);
        if is_draining {
            return self.give_back(work).await;
        }
        self.endpoint.counters.received.increment();
        let job = job::decode(&self.endpoint, work);
        match self.lane_of(&job) {
            None => self.start(job, None),
            Some(lane) => {
                if let Some(job) = self.lanes.enter(&lane, job) {
                    self.start(job, Some(lane));
                }
            }
        }
    }

    /// Returns the lane of a message: its instance's, else its key's where order is promised.
    fn lane_of(&self, job: &Job) -> Option<String> {
        if let Some(instance) = job.instance() {
            return Some([&instance.kind, LANE_SEPARATOR, &instance.key].concat());
        }
        // Not the lane of its instance's key, which only the store knows: where both kinds of
        // message meet, the version decides.
        if let Some(label) = job.label() {
            let (name, value) = (&label.label.name, &label.label.value);
            let parts = [&label.kind, LANE_SEPARATOR, name, LANE_SEPARATOR, value];
            return Some(parts.concat());
        }
        match self.endpoint.order {
            Order::PerKey => job.key().map(str::to_owned),
            Order::Unordered => None,
        }
    }

    fn start(&mut self, job: Job, lane: Option<String>) {
        self.running += 1;
        let leave = Leave {
            lane,
            left: self.left.clone(),
        };
        let endpoint = Arc::clone(&self.endpoint);
        self.endpoint.lifecycle.spawn(async move {
            let _leave = leave;
            handling::run(&endpoint, job).await;
        });
    }

    fn leave(&mut self, lane: Option<String>) {
        self.running -= 1;
        let Some(lane) = lane else { return };
        let Some(job) = self.lanes.leave(&lane) else {
            return;
        };
        let more = match job.merges() {
            true => self.lanes.take_more(&lane, MERGED_MAX - 1, Job::merges),
            false => Vec::new(),
        };
        if more.is_empty() {
            return self.start(job, Some(lane));
        }
        let jobs = std::iter::once(job).chain(more).collect();
        self.start_merged(jobs, lane);
    }

    /// Runs messages that wait for one instance together.
    fn start_merged(&mut self, jobs: Vec<Job>, lane: String) {
        self.running += 1;
        let leave = Leave {
            lane: Some(lane),
            left: self.left.clone(),
        };
        let endpoint = Arc::clone(&self.endpoint);
        self.endpoint.lifecycle.spawn(async move {
            let _leave = leave;
            merging::run(&endpoint, jobs).await;
        });
    }

    async fn give_back_waiting(&mut self) {
        for job in self.lanes.take_waiting() {
            self.give_back(job.into_work()).await;
        }
    }

    /// Gives back what never ran: its start does not count.
    async fn give_back(&self, work: Work) {
        if let Arrival::Row(row) = &work.arrival {
            self.endpoint.in_hand.let_go(row.row);
            let release = Settle::Release {
                row: row.row,
                after: Duration::ZERO,
                attempts: None,
                start: Start::GivenBack,
            };
            self.endpoint.committer.settle_all(vec![release]).await;
        }
    }
}

/// Tells the receiver that a lane is free, also when its task was dropped or panicked.
struct Leave {
    lane: Option<String>,
    left: mpsc::UnboundedSender<Option<String>>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let _ = self.left.send(self.lane.take()); // A receiver that is gone has no lanes.
    }
}
