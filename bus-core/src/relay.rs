//! Rows to the broker: from memory after a commit that we saw, else claimed. The safety net for
//! crashes, outages, due rows and rows that an API wrote in its own transaction.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Fuse, FusedFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::backoff::{Backoff, jittered};
use crate::breakers::{Breakers, Way};
use crate::claimer;
use crate::clock;
use crate::committer::{CommitterHandle, Shared};
use crate::error::{StoreError, TransportError, chain};
use crate::faults::{self, Point};
use crate::intake::{Arrival, Intake, Publisher, Room, Work};
use crate::keeping::Keeping;
use crate::store::{Claim, ClaimFrom, ClaimedRow, Scan};
use crate::sync::time;
use crate::transport::{Publication, Transport};
use crate::transports::{TransportName, Transports};
use crate::unit_of_work::{Attempt, Reason, Settle, Start};

/// Rows in hand at most: two windows.
const ROWS_IN_HAND_MAX: usize = 1000;
/// Rows in one window. RabbitMQ gains most between 20 and 200 and nothing above 1,000.
const WINDOW: usize = 500;
/// Windows under way at once, so that one is filled while the other's confirms come.
const WINDOWS_MAX: usize = 2;
/// Rows of one address in one claim, so that a long queue for one does not keep out the others.
const PER_ADDRESS: u32 = 500;
/// How often an idle relay looks. Wake-ups make it look sooner.
const POLL: Duration = Duration::from_millis(200);
/// The shortest time between two scans of everything.
const COLD_MIN: Duration = Duration::from_secs(10);
/// Refusals after which a row is parked for an operator: about 15 s.
const REFUSALS_MAX: usize = 5;
/// How often a row without a place is tried: about six minutes, because the service that takes it
/// may be started after the one that sends it.
const UNROUTABLE_MAX: usize = 12;
/// The longest pause between two tries of a row.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Starts a relay for each transport of a host. They share nothing that one broker could fill, so
/// that one that is down never delays the rows of another.
///
/// Each is held until its sender has said otherwise: a start breaks no pause.
pub(crate) fn start(
    shared: &Arc<Shared>,
    committer: &CommitterHandle,
    transports: &Transports,
    keeping: Keeping,
    wakeups: &watch::Receiver<u64>,
) -> Vec<(TransportName, watch::Sender<bool>)> {
    let (mut publishers, mut holds) = (Vec::new(), Vec::new());
    for (name, transport) in transports.each() {
        let (intake, works) = Intake::new(ROWS_IN_HAND_MAX);
        let publisher = Publisher::new(name.clone(), intake);
        publishers.push(publisher.clone());
        publisher.set_health(false);
        let (hold, held) = watch::channel(true);
        holds.push((name.clone(), hold));
        let relay = Relay {
            shared: Arc::clone(shared),
            committer: committer.clone(),
            transport: Arc::clone(transport),
            publisher,
            wakeups: wakeups.clone(),
            breakers: Breakers::new(WINDOW),
            cold_at: Instant::now(),
            has_more: true,
            held,
            keeping,
            is_down: false,
        };
        shared.lifecycle.spawn(relay.run(works));
    }
    shared.intakes.open_publishers(publishers);
    holds
}

struct Relay {
    shared: Arc<Shared>,
    committer: CommitterHandle,
    transport: Arc<dyn Transport>,
    publisher: Publisher,
    wakeups: watch::Receiver<u64>,
    breakers: Breakers,
    cold_at: Instant,
    /// Whether there may be rows that only wait for room here.
    has_more: bool,
    /// Whether an operator wants nothing to be sent.
    held: watch::Receiver<bool>,
    keeping: Keeping,
    /// Whether the broker did not answer last.
    is_down: bool,
}

/// A row with the place that it takes until it is settled.
struct InFlight {
    row: Box<ClaimedRow>,
    way: Way,
    _place: OwnedSemaphorePermit,
}

type Published = (Vec<InFlight>, Vec<Result<(), TransportError>>);

/// A claim that is under way in a task of its own.
type Claiming = Fuse<oneshot::Receiver<Claimed>>;

/// How a claim went. What it found is in the publisher's entrance.
struct Claimed {
    scan: Scan,
    began: Instant,
    /// Whether all that was asked for was there, and so there may be more.
    is_full: Result<bool, StoreError>,
}

impl Relay {
    async fn run(mut self, mut works: mpsc::UnboundedReceiver<Work>) {
        let mut windows: FuturesUnordered<BoxFuture<'static, Published>> = FuturesUnordered::new();
        let mut waiting: Vec<InFlight> = Vec::new();
        let mut arrived: Vec<Work> = Vec::with_capacity(WINDOW);
        let mut claim_at = Instant::now();
        let mut claiming: Claiming = Fuse::terminated();
        let mut outage = Backoff::new("publish");
        let lifecycle = self.shared.lifecycle.clone();
        while !lifecycle.is_draining() {
            tokio::select! {
                biased;
                Some((rows, results)) = windows.next(), if !windows.is_empty() => {
                    let is_down = self.settle(rows, results).await;
                    self.note_health(is_down, &mut outage).await;
                    if self.has_more { claim_at = Instant::now(); }
                }
                n = works.recv_many(&mut arrived, WINDOW), if waiting.len() < WINDOW => {
                    if n == 0 { break; }
                }
                claimed = &mut claiming, if !claiming.is_terminated() => {
                    // Not later than somebody asked for meanwhile.
                    claim_at = claim_at.min(Instant::now() + self.pause_after(claimed));
                }
                () = time::sleep_until(claim_at), if claiming.is_terminated() => {
                    claiming = self.claim_or_pause();
                    let pause = if claiming.is_terminated() { POLL } else { COLD_MIN };
                    claim_at = Instant::now() + pause;
                }
                changed = self.wakeups.changed() => {
                    if changed.is_err() { time::sleep(POLL).await; }
                    claim_at = Instant::now();
                }
                Ok(()) = self.held.changed() => {
                    self.show_health();
                    claim_at = Instant::now();
                }
                () = lifecycle.draining() => {}
            }
            waiting.extend(arrived.drain(..).filter_map(in_flight));
            while windows.len() < WINDOWS_MAX && !waiting.is_empty() {
                let rest = waiting.split_off(waiting.len().min(WINDOW));
                let window = std::mem::replace(&mut waiting, rest);
                let publishing = self.publish(window).await;
                windows.push(publishing);
            }
        }
        self.finish(windows, waiting, works).await;
    }

    /// Waits for the confirms under way and gives back what was not published.
    async fn finish(
        mut self,
        mut windows: FuturesUnordered<BoxFuture<'static, Published>>,
        waiting: Vec<InFlight>,
        mut works: mpsc::UnboundedReceiver<Work>,
    ) {
        self.publisher.intake.close();
        self.give_back(waiting).await;
        while let Some((rows, results)) = windows.next().await {
            self.settle(rows, results).await;
        }
        // A commit under way may still fill a place that it took before.
        while let Some(work) = self.publisher.intake.last(&mut works).await {
            let rows = in_flight(work).into_iter().collect();
            self.give_back(rows).await;
        }
    }

    /// Starts a claim where there is room for a window; else there is none under way.
    fn claim_or_pause(&mut self) -> Claiming {
        if self.is_held() {
            return Fuse::terminated();
        }
        if self.publisher.intake.free() < WINDOW {
            self.has_more = true;
            return Fuse::terminated();
        }
        self.claim().fuse()
    }

    /// Starts a claim in a task of its own: what is on its way to the broker does not wait for it.
    fn claim(&mut self) -> oneshot::Receiver<Claimed> {
        let began = Instant::now();
        let room = self.publisher.intake.reserve_up_to(WINDOW);
        let scan = if began >= self.cold_at {
            Scan::Cold
        } else {
            Scan::Hot
        };
        let from = ClaimFrom::Transport {
            name: self.publisher.name.clone(),
            limit: u32::try_from(room.len()).unwrap_or(u32::MAX),
            per_address: PER_ADDRESS,
            bounds: self.breakers.bounds(),
        };
        let claim = Claim {
            from,
            lease: self.shared.lease,
            scan,
        };
        let (done, is_done) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.shared.lifecycle.spawn(async move {
            let is_full = shared.let_in(&claim, room).await;
            // Nobody asks at the end of the host: what was let in is given back.
            let _ = done.send(Claimed {
                scan,
                began,
                is_full,
            });
        });
        is_done
    }

    /// Returns when to look again after a claim. One that was cut off is made again as if it had
    /// found nothing.
    fn pause_after(&mut self, claimed: Result<Claimed, oneshot::error::RecvError>) -> Duration {
        let Ok(claimed) = claimed else {
            return POLL;
        };
        let is_full = match claimed.is_full {
            Ok(is_full) => is_full,
            Err(error) => {
                tracing::warn!(error = chain(&error), "relay cannot claim; trying again");
                return jittered(Duration::from_secs(1));
            }
        };
        if claimed.scan == Scan::Cold && !is_full {
            let now = Instant::now();
            self.cold_at = now + ((now - claimed.began) * 20).max(COLD_MIN);
        }
        self.has_more = is_full;
        if is_full { Duration::ZERO } else { POLL }
    }

    /// Starts publishing a window. Rows that must not go out now are settled at once.
    async fn publish(&mut self, window: Vec<InFlight>) -> BoxFuture<'static, Published> {
        let body_bytes_max = self.transport.capabilities().body_bytes_max;
        let mut ready = Vec::with_capacity(window.len());
        let window = match self.is_held() {
            // What was claimed before goes back as it was, for when the operator lets go.
            true => {
                self.give_back(window).await;
                Vec::new()
            }
            false => window,
        };
        let mut settles = Vec::new();
        for mut one in window {
            if one.row.is_expired {
                self.shared.counters.expired.increment();
                settles.push(self.park(one, Reason::Expired, None));
            } else if one.row.envelope.body.len() > body_bytes_max {
                settles.push(self.park(one, Reason::OutOfBounds, None));
            } else {
                match self.breakers.way(&one.row.destination) {
                    Way::Shut(after) => settles.push(self.given_back(&one, after)),
                    way => {
                        one.way = way;
                        ready.push(one);
                    }
                }
            }
        }
        self.committer.settle_all(settles).await;
        let publications: Vec<_> = ready.iter().map(publication).collect();
        let transport = Arc::clone(&self.transport);
        faults::at(Point::BeforePublish);
        Box::pin(async move {
            let results = transport.publish(&publications).await;
            faults::at(Point::AfterPublish);
            (ready, results)
        })
    }

    /// Settles a window by the broker's word on each row. Returns whether the broker was away.
    async fn settle(
        &mut self,
        rows: Vec<InFlight>,
        results: Vec<Result<(), TransportError>>,
    ) -> bool {
        let mut settles = Vec::with_capacity(rows.len());
        let mut is_down = false;
        let mut results = results.into_iter();
        for one in rows {
            // A transport that answers for fewer rows than it was given leaves the rest unknown.
            match results
                .next()
                .unwrap_or_else(|| Err(TransportError::Unknown("no answer".into())))
            {
                Ok(()) => {
                    self.shared.counters.published.increment();
                    self.has_more |= self.breakers.taken(&one.row.destination, one.way);
                    self.shared.in_hand.let_go(one.row.row);
                    settles.push(self.keeping.settle(one.row.row));
                }
                Err(error) => {
                    let is_away = matches!(
                        error,
                        TransportError::Unavailable(_) | TransportError::Unknown(_)
                    );
                    is_down |= is_away;
                    settles.push(self.failed(one, &error, is_away));
                }
            }
        }
        self.committer.settle_all(settles).await;
        faults::at(Point::AfterSettle);
        is_down
    }

    /// Decides on a row that the broker did not take.
    fn failed(&mut self, one: InFlight, error: &TransportError, is_away: bool) -> Settle {
        self.shared.counters.publish_failures.increment();
        let row = one.row.row;
        if is_away {
            // An outage says nothing about this row: its start is given back.
            self.breakers.unanswered(&one.row.destination, one.way);
            return self.given_back(&one, jittered(Duration::from_secs(1)));
        }
        self.breakers.refused(&one.row.destination, one.way);
        let Some(after) = pause(error, one.row.attempts.len() + 1) else {
            return self.park(one, Reason::Unroutable, Some(chain(error)));
        };
        self.shared.in_hand.let_go(row);
        let mut attempts = one.row.attempts;
        attempts.push(self.attempt(chain(error)));
        Settle::Release {
            row,
            after: jittered(after),
            attempts: Some(attempts),
            start: Start::Counted,
        }
    }

    fn park(&self, one: InFlight, reason: Reason, error: Option<String>) -> Settle {
        self.shared.counters.parked.increment();
        let ClaimedRow {
            row,
            mut attempts,
            destination,
            ..
        } = *one.row;
        self.shared.in_hand.let_go(row);
        attempts.extend(error.map(|error| self.attempt(error)));
        tracing::warn!(
            id = row.id,
            destination,
            reason = reason.as_str(),
            "row is parked"
        );
        Settle::Park {
            row,
            reason,
            attempts,
        }
    }

    fn attempt(&self, error: String) -> Attempt {
        Attempt {
            at: clock::now(),
            host: "relay".to_owned(),
            error,
            excused: 0,
        }
    }

    async fn give_back(&self, rows: Vec<InFlight>) {
        let rows = rows.iter();
        let settles = rows.map(|one| self.given_back(one, Duration::ZERO));
        self.committer.settle_all(settles.collect()).await;
    }

    /// Lets a row go as if it had not been started.
    fn given_back(&self, one: &InFlight, after: Duration) -> Settle {
        let row = one.row.row;
        self.shared.in_hand.let_go(row);
        Settle::Release {
            row,
            after,
            attempts: None,
            start: Start::GivenBack,
        }
    }

    fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// While the broker is away, or an operator holds it, nothing is born leased to the publisher.
    fn show_health(&self) {
        self.publisher.set_health(!self.is_down && !self.is_held());
    }

    /// While the broker is away nothing is born leased to the publisher and nothing is claimed.
    async fn note_health(&mut self, is_down: bool, outage: &mut Backoff) {
        self.is_down = is_down;
        self.show_health();
        if is_down {
            outage
                .failed(&TransportError::Unavailable(
                    "a window was not confirmed".into(),
                ))
                .await;
        } else {
            outage.ended();
        }
    }
}

impl Shared {
    /// Claims rows and lets them in. Returns whether there was no room for more.
    async fn let_in(&self, claim: &Claim, mut room: Room) -> Result<bool, StoreError> {
        let rows = claimer::take(&*self.store, &self.counters, claim).await?;
        let is_full = rows.len() >= room.len();
        for row in rows {
            if let Some(slot) = room.take() {
                slot.fill(row, &self.in_hand);
            }
        }
        Ok(is_full)
    }
}

/// Says how long a refused row waits for its next try, given how many it has had; `None` when that
/// was the last one.
fn pause(error: &TransportError, tries: usize) -> Option<Duration> {
    let tries_max = match error {
        TransportError::Unroutable { .. } => UNROUTABLE_MAX,
        _ => REFUSALS_MAX,
    };
    let doubled = u32::try_from(tries).unwrap_or(u32::MAX).min(16);
    let pause = Duration::from_millis(500) * 2u32.pow(doubled);
    (tries < tries_max).then_some(pause.min(PAUSE_MAX))
}

fn in_flight(work: Work) -> Option<InFlight> {
    match work.arrival {
        Arrival::Row(row) => Some(InFlight {
            row,
            way: Way::Free,
            _place: work.place,
        }),
        // Only rows are ever let into the publisher.
        Arrival::Delivery(_) => None,
    }
}

fn publication(one: &InFlight) -> Publication {
    Publication {
        address: TransportName::split(&one.row.destination).1.to_owned(),
        envelope: one.row.envelope.clone(),
        key: one.row.key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up what a row waits until it is parked.
    fn patience(error: &TransportError) -> Duration {
        (1..).map_while(|tries| pause(error, tries)).sum()
    }

    #[test]
    fn a_row_without_a_place_is_tried_for_longer_than_a_refused_one() {
        let refused = TransportError::Refused("too long".to_owned());
        assert_eq!(patience(&refused), Duration::from_secs(15));
        let address = "command/orders.place".to_owned();
        let unroutable = TransportError::Unroutable { address };
        assert_eq!(patience(&unroutable), Duration::from_secs(63 + 5 * 60));
    }
}
