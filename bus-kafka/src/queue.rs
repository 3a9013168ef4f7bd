//! What one replica has of an endpoint: records that wait, that are in hand, and that were given
//! back for later. Partitions come and go; what belongs to one that went is stale.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use sagabus_core::endpoint::Order;
use sagabus_core::envelope::Envelope;
use tokio::time::Instant;

use crate::offsets::Watermark;
use crate::standstill::Idle;

/// A topic's partition.
pub(crate) type Place = (String, i32);

/// What is kept of a record until it is done.
struct Held {
    place: Place,
    offset: i64,
    key: Option<Bytes>,
    envelope: Envelope,
    redeliveries: u32,
    is_in_hand: bool,
}

/// A partition that is ours.
#[derive(Default)]
struct Partition {
    /// Tells this time that it is ours from others.
    term: u64,
    mark: Watermark,
    /// It is about to go: nothing more of it is handed out.
    is_leaving: bool,
    in_hand: usize,
    /// How often it was begun before, with nothing done since.
    begun_before: u32,
    /// Records that have come in this term.
    came: usize,
}

/// A record as it comes.
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) offset: i64,
    /// `None` for one that is passed over.
    pub(crate) message: Option<(Envelope, Option<Bytes>)>,
}

/// What there is to take.
pub(crate) enum Next {
    /// This message, under this number, delivered so often before.
    Message(u64, Envelope, u32),
    /// Nothing before this time, unless something changes.
    At(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// See above.
pub(crate) struct Queue {
    order: Order,
    prefetch: usize,
    partitions: HashMap<Place, Partition>,
    terms: u64,
    numbers: u64,
    held: HashMap<u64, Held>,
    ready: VecDeque<u64>,
    /// Given back, with the time from which they may be taken again.
    later: BTreeSet<(Instant, u64)>,
    /// Where order is promised: keys with a record that is ready, in hand or given back, and those
    /// that wait behind it. A key is ordered within its partition.
    lanes: HashMap<(Place, Bytes), VecDeque<u64>>,
    /// Deliveries that are alive, stale ones included.
    in_hand: usize,
    /// The bodies of all that is held.
    bytes: usize,
    /// Records that may wait here.
    waiting_max: usize,
    /// Somebody was told that there is no room.
    was_full: bool,
}

/// Bodies that may be held, for the whole endpoint. At least one record always may.
const BYTES_MAX: usize = 32 * 1024 * 1024;

impl Queue {
    pub(crate) fn new(order: Order, prefetch: u32) -> Self {
        Self {
            order,
            prefetch: usize::try_from(prefetch).unwrap_or(usize::MAX).max(1),
            partitions: HashMap::new(),
            terms: 0,
            numbers: 0,
            held: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            lanes: HashMap::new(),
            in_hand: 0,
            bytes: 0,
            // Twice the prefetch, so that a key that is held back leaves others something to do.
            waiting_max: usize::try_from(prefetch)
                .unwrap_or(usize::MAX)
                .clamp(32, 4096)
                * 2,
            was_full: false,
        }
    }

    /// Notes a partition that is ours from now on.
    pub(crate) fn assign(&mut self, place: Place) {
        self.forget(&place);
        self.terms += 1;
        let term = self.terms;
        self.partitions.insert(
            place,
            Partition {
                term,
                ..Partition::default()
            },
        );
    }

    /// Returns the partitions that are ours, each with the number of this time that it is.
    pub(crate) fn terms(&self) -> HashMap<Place, u64> {
        let each = self.partitions.iter();
        each.map(|(place, one)| (place.clone(), one.term)).collect()
    }

    /// Hands out nothing more of a partition.
    pub(crate) fn stop(&mut self, place: &Place) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.is_leaving = true;
        }
        self.drop_records(place, |held| !held.is_in_hand);
    }

    /// Hands out nothing more at all.
    pub(crate) fn stop_all(&mut self) {
        let places: Vec<_> = self.partitions.keys().cloned().collect();
        for place in places {
            self.stop(&place);
        }
    }

    /// Returns the partitions of which nothing is here, though there would be room.
    pub(crate) fn idle(&self) -> Vec<Idle> {
        if self.was_full {
            return Vec::new();
        }
        let busy: HashSet<&Place> = self.held.values().map(|held| &held.place).collect();
        let each = self.partitions.iter();
        each.filter(|(place, one)| !one.is_leaving && !busy.contains(place))
            .map(|(place, one)| Idle {
                place: place.clone(),
                term: one.term,
                next: one.mark.next(),
            })
            .collect()
    }

    /// Counts the deliveries of partitions that are ours still.
    pub(crate) fn in_hand_of<'a>(&self, places: impl Iterator<Item = &'a Place>) -> usize {
        let ours = places.filter_map(|place| self.partitions.get(place));
        ours.map(|one| one.in_hand).sum()
    }

    /// Lets go of a partition: its deliveries are stale from now on.
    pub(crate) fn forget(&mut self, place: &Place) {
        if self.partitions.remove(place).is_some() {
            self.drop_records(place, |_| true);
        }
    }

    /// Lets go of all partitions.
    pub(crate) fn forget_all(&mut self) {
        let places: Vec<_> = self.partitions.keys().cloned().collect();
        for place in places {
            self.forget(&place);
        }
    }

    fn drop_records(&mut self, place: &Place, is_dropped: impl Fn(&Held) -> bool) {
        self.held
            .retain(|_, held| held.place != *place || !is_dropped(held));
        self.bytes = self
            .held
            .values()
            .map(|held| held.envelope.body.len())
            .sum();
        let held = &self.held;
        self.ready.retain(|number| held.contains_key(number));
        self.later.retain(|(_, number)| held.contains_key(number));
        self.lanes.retain(|(of, _), _| of != place);
    }

    /// Says whether no record of a partition has come in its term.
    pub(crate) fn is_first(&self, place: &Place) -> bool {
        let partition = self.partitions.get(place);
        partition.is_some_and(|one| one.came == 0 && !one.is_leaving)
    }

    /// Notes how often a partition was begun before. Those that come first are suspects: what was
    /// in hand then is among them.
    pub(crate) fn begun(&mut self, place: &Place, before: u32) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.begun_before = before;
        }
    }

    /// Adds a record. One of a partition that is not ours, or that came before, is dropped.
    pub(crate) fn push(&mut self, record: Record) {
        let Some(partition) = self.partitions.get_mut(&record.place) else {
            return;
        };
        if partition.is_leaving || !partition.mark.receive(record.offset) {
            return;
        }
        partition.came += 1;
        let Some((envelope, key)) = record.message else {
            partition.mark.finish(record.offset);
            return;
        };
        let is_suspect = partition.came <= self.prefetch;
        let redeliveries = if is_suspect {
            partition.begun_before
        } else {
            0
        };
        self.bytes += envelope.body.len();
        self.numbers += 1;
        let number = self.numbers;
        let key = key.filter(|_| self.order == Order::PerKey);
        let is_free = match &key {
            None => true,
            Some(key) => match self.lanes.get_mut(&(record.place.clone(), key.clone())) {
                Some(behind) => {
                    behind.push_back(number);
                    false
                }
                None => {
                    let lane = (record.place.clone(), key.clone());
                    self.lanes.insert(lane, VecDeque::new());
                    true
                }
            },
        };
        if is_free {
            self.ready.push_back(number);
        }
        let held = Held {
            place: record.place,
            offset: record.offset,
            key,
            envelope,
            redeliveries,
            is_in_hand: false,
        };
        self.held.insert(number, held);
    }

    /// Counts the records that wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len().saturating_sub(self.in_hand)
    }

    /// Says whether there is no room for more.
    pub(crate) fn is_full(&mut self) -> bool {
        self.was_full = self.waiting() >= self.waiting_max
            || (self.bytes >= BYTES_MAX && !self.held.is_empty());
        self.was_full
    }

    /// Says once, after there was no room, that there is again: half of it.
    pub(crate) fn has_room_again(&mut self) -> bool {
        let has_room = self.waiting() <= self.waiting_max / 2 && self.bytes <= BYTES_MAX / 2;
        let is_news = self.was_full && has_room;
        self.was_full &= !is_news;
        is_news
    }

    /// Takes a record, unless as many as may be are in hand.
    pub(crate) fn take(&mut self, now: Instant) -> Next {
        while let Some((at, number)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, number));
            self.ready.push_front(number);
        }
        if self.in_hand >= self.prefetch {
            return Next::Nothing;
        }
        while let Some(number) = self.ready.pop_front() {
            let Some(held) = self.held.get_mut(&number) else {
                continue;
            };
            held.is_in_hand = true;
            self.in_hand += 1;
            if let Some(partition) = self.partitions.get_mut(&held.place) {
                partition.in_hand += 1;
            }
            return Next::Message(number, held.envelope.clone(), held.redeliveries);
        }
        match self.later.first() {
            Some((at, _)) => Next::At(*at),
            None => Next::Nothing,
        }
    }

    /// Notes that a message is done. Of one that is stale nothing is left to note.
    pub(crate) fn ack(&mut self, number: u64) {
        self.in_hand -= 1;
        let Some(held) = self.held.remove(&number) else {
            return;
        };
        self.bytes -= held.envelope.body.len();
        if let Some(partition) = self.partitions.get_mut(&held.place) {
            partition.in_hand -= 1;
            partition.mark.finish(held.offset);
        }
        if let Some(key) = held.key {
            self.leave(held.place, key);
        }
    }

    /// Lets the next of a key go.
    fn leave(&mut self, place: Place, key: Bytes) {
        let lane = (place, key);
        let Some(behind) = self.lanes.get_mut(&lane) else {
            return;
        };
        match behind.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Takes a message back, to be taken again at `at`. One that is stale comes to whoever has its
    /// partition now.
    pub(crate) fn give_back(&mut self, number: u64, at: Option<Instant>) {
        self.in_hand -= 1;
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        held.is_in_hand = false;
        held.redeliveries += 1;
        let partition = self.partitions.get_mut(&held.place);
        let is_leaving = partition.is_none_or(|partition| {
            partition.in_hand -= 1;
            partition.is_leaving
        });
        if is_leaving {
            self.bytes -= held.envelope.body.len();
            self.held.remove(&number);
            return;
        }
        match at {
            Some(at) => {
                self.later.insert((at, number));
            }
            None => self.ready.push_front(number),
        }
    }

    /// Returns how far partitions are done, where the group does not know it yet.
    pub(crate) fn to_commit(&self) -> Vec<(Place, i64)> {
        let each = self.partitions.iter();
        each.filter_map(|(place, one)| Some((place.clone(), one.mark.to_commit()?)))
            .collect()
    }

    /// Notes what was handed to the broker.
    pub(crate) fn committed(&mut self, place: &Place, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.mark.commit(offset);
        }
    }

    /// Notes that the broker did not take what it was handed.
    pub(crate) fn commit_again(&mut self, failed: &[(Place, i64)]) {
        for (place, _) in failed {
            self.committed(place, -1);
        }
    }

    /// Returns how far some partitions are done.
    pub(crate) fn to_commit_of(&self, places: &HashSet<Place>) -> Vec<(Place, i64)> {
        let mut all = self.to_commit();
        all.retain(|(place, _)| places.contains(place));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sagabus_core::headers::Headers;
    use sagabus_core::id::MessageId;

    use super::*;

    fn place(partition: i32) -> Place {
        ("orders".to_owned(), partition)
    }

    fn record(partition: i32, offset: i64, key: &'static str) -> Record {
        let envelope = Envelope {
            id: MessageId::new(),
            message_type: format!("{key}{offset}").into(),
            headers: Headers::new(),
            body: Bytes::new(),
        };
        Record {
            place: place(partition),
            offset,
            message: Some((envelope, Some(Bytes::from_static(key.as_bytes())))),
        }
    }

    fn queue(order: Order, prefetch: u32, records: &[(i32, i64, &'static str)]) -> Queue {
        let mut queue = Queue::new(order, prefetch);
        queue.assign(place(0));
        queue.assign(place(1));
        for (partition, offset, key) in records {
            queue.push(record(*partition, *offset, key));
        }
        queue
    }

    /// Takes all that can be taken; shows numbers by name.
    fn take_all(queue: &mut Queue, now: Instant) -> Vec<(u64, String)> {
        let mut taken = Vec::new();
        while let Next::Message(number, envelope, _) = queue.take(now) {
            taken.push((number, envelope.message_type.into_owned()));
        }
        taken
    }

    fn names(taken: &[(u64, String)]) -> Vec<&str> {
        taken.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[tokio::test]
    async fn no_more_than_the_prefetch_is_in_hand() {
        let records = [(0, 1, "a"), (0, 2, "a"), (1, 1, "b")];
        let mut queue = queue(Order::Unordered, 2, &records);
        let taken = take_all(&mut queue, Instant::now());
        assert_eq!(names(&taken), ["a1", "a2"]);
        queue.ack(taken[1].0);
        assert_eq!(names(&take_all(&mut queue, Instant::now())), ["b1"]);
        assert_eq!(queue.to_commit(), [], "the first is still in hand");
    }

    #[tokio::test]
    async fn where_order_is_promised_a_key_has_one_in_hand_and_others_pass() {
        let records = [(0, 1, "a"), (0, 2, "a"), (0, 3, "b"), (0, 4, "a")];
        let mut queue = queue(Order::PerKey, 10, &records);
        let now = Instant::now();
        let first = take_all(&mut queue, now);
        assert_eq!(names(&first), ["a1", "b3"]);
        queue.give_back(first[0].0, Some(now + Duration::from_secs(5)));
        queue.ack(first[1].0);
        assert!(matches!(queue.take(now), Next::At(_)), "the key waits");
        let later = now + Duration::from_secs(5);
        for expected in ["a1", "a2", "a4"] {
            let taken = take_all(&mut queue, later);
            assert_eq!(names(&taken), [expected]);
            queue.ack(taken[0].0);
        }
        assert_eq!(queue.to_commit(), [(place(0), 5)]);
        assert!(queue.lanes.is_empty() && queue.held.is_empty());
    }

    #[tokio::test]
    async fn deliveries_of_a_partition_that_went_are_stale() {
        let records = [(0, 1, "a"), (1, 1, "b"), (1, 2, "b")];
        let mut queue = queue(Order::PerKey, 10, &records);
        let taken = take_all(&mut queue, Instant::now());
        assert_eq!(names(&taken), ["a1", "b1"]);
        queue.stop(&place(1));
        assert_eq!(queue.in_hand_of([place(1)].iter()), 1);
        queue.forget(&place(1));
        queue.assign(place(1));
        queue.push(record(1, 1, "b"));
        // The stale one changes nothing of the new term.
        queue.ack(taken[1].0);
        assert_eq!(queue.to_commit(), []);
        let again = take_all(&mut queue, Instant::now());
        assert_eq!(names(&again), ["b1"]);
        queue.ack(again[0].0);
        queue.ack(taken[0].0);
        let mut all = queue.to_commit();
        all.sort();
        assert_eq!(all, [(place(0), 2), (place(1), 2)]);
        assert_eq!((queue.in_hand, queue.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_given_back_of_a_leaving_partition_stays_undone() {
        let mut queue = queue(
            Order::Unordered,
            10,
            &[(0, 1, "a"), (0, 2, "a"), (0, 3, "a")],
        );
        let taken = take_all(&mut queue, Instant::now());
        queue.stop(&place(0));
        queue.ack(taken[0].0);
        queue.ack(taken[2].0);
        queue.give_back(taken[1].0, None);
        assert_eq!(take_all(&mut queue, Instant::now()), []);
        assert_eq!(queue.to_commit(), [(place(0), 2)]);
        assert_eq!(queue.in_hand_of([place(0)].iter()), 0);
    }

    #[tokio::test]
    async fn a_record_that_is_passed_over_is_done() {
        let mut queue = queue(Order::Unordered, 10, &[]);
        let nothing = Record {
            place: place(0),
            offset: 7,
            message: None,
        };
        queue.push(nothing);
        assert_eq!(queue.to_commit(), [(place(0), 8)]);
    }

    #[tokio::test]
    async fn the_first_of_a_partition_that_was_begun_before_are_suspects() {
        let mut queue = queue(Order::Unordered, 2, &[]);
        assert!(queue.is_first(&place(0)));
        queue.begun(&place(0), 3);
        for offset in 1..=3 {
            queue.push(record(0, offset, "a"));
        }
        assert!(!queue.is_first(&place(0)) && queue.is_first(&place(1)));
        let mut counts = Vec::new();
        while let Next::Message(number, _, redeliveries) = queue.take(Instant::now()) {
            counts.push(redeliveries);
            queue.ack(number);
        }
        assert_eq!(counts, [3, 3, 0]);
    }

    #[tokio::test]
    async fn room_is_told_once_when_half_of_it_is_there() {
        let records: Vec<_> = (0..64).map(|offset| (0, offset, "a")).collect();
        let mut queue = queue(Order::Unordered, 1, &records);
        assert!(queue.is_full(), "twice 32 wait");
        let mut news = Vec::new();
        for taken in 1..=64 {
            let Next::Message(number, ..) = queue.take(Instant::now()) else {
                panic!("there are more");
            };
            queue.ack(number);
            if queue.has_room_again() {
                news.push(taken);
            }
        }
        assert_eq!(news, [32]);
        let large = |offset| {
            let mut large = record(1, offset, "b");
            let (envelope, _) = large.message.as_mut().unwrap();
            envelope.body = Bytes::from(vec![0; BYTES_MAX / 2]);
            large
        };
        queue.push(large(1));
        assert!(!queue.is_full());
        queue.push(large(2));
        assert!(queue.is_full(), "a few large ones fill it, too");
    }

    #[tokio::test]
    async fn a_record_of_nobodys_partition_is_dropped() {
        let mut queue = queue(Order::Unordered, 10, &[(2, 1, "c")]);
        assert_eq!(take_all(&mut queue, Instant::now()), []);
    }
}
