//! What one channel has delivered and nobody has answered yet: which may be given out next, and
//! which acks can be sent as one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use sagabus_core::endpoint::Order;

use crate::headers::Read;

/// An ack to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Of this tag and every older one.
    UpTo(u64),
    /// Of this tag alone.
    One(u64),
}

/// Deliveries by their tags, which grow on a channel.
pub(crate) struct InHand {
    order: Order,
    /// Not answered to the broker; `true` once it is to be acked.
    open: BTreeMap<u64, bool>,
    /// Every tag up to this one has arrived. Deliveries of several queues do not arrive here in the
    /// order of their tags, and a range must never ack one that nobody has seen.
    arrived_up_to: u64,
    /// Tags beyond it that have arrived.
    ahead: BTreeSet<u64>,
    /// May be given out, in this order.
    ready: VecDeque<u64>,
    /// What may be given out now or later. Where order is promised, also what is given out.
    kept: HashMap<u64, Read>,
    /// In a handler's hands.
    given_out: HashSet<u64>,
    /// Where order is promised: the deliveries of a key, of which only the first may be given out.
    lanes: HashMap<String, VecDeque<u64>>,
}

impl InHand {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            open: BTreeMap::new(),
            arrived_up_to: 0,
            ahead: BTreeSet::new(),
            ready: VecDeque::new(),
            kept: HashMap::new(),
            given_out: HashSet::new(),
            lanes: HashMap::new(),
        }
    }

    /// Adds a delivery.
    pub(crate) fn arrived(&mut self, tag: u64, read: Read) {
        self.open.insert(tag, false);
        self.ahead.insert(tag);
        while self.ahead.remove(&(self.arrived_up_to + 1)) {
            self.arrived_up_to += 1;
        }
        let lane = read.key.as_ref().filter(|_| self.order == Order::PerKey);
        let is_first = lane.is_none_or(|key| {
            let lane = self.lanes.entry(key.clone()).or_default();
            lane.push_back(tag);
            lane.len() == 1
        });
        if is_first {
            self.ready.push_back(tag);
        }
        self.kept.insert(tag, read);
    }

    /// Gives out a delivery.
    pub(crate) fn next(&mut self) -> Option<(u64, Read)> {
        let tag = self.ready.pop_front()?;
        let read = match self.order {
            Order::Unordered => self.kept.remove(&tag)?,
            Order::PerKey => self.kept.get(&tag)?.clone(),
        };
        self.given_out.insert(tag);
        Some((tag, read))
    }

    /// Takes handlers' acks; returns what to tell the broker. A range is sent only where everything
    /// in it was acked.
    pub(crate) fn acked(&mut self, tags: Vec<u64>) -> Vec<Step> {
        for tag in &tags {
            self.given_out.remove(tag);
            self.free_lane(*tag);
            if let Some(is_acked) = self.open.get_mut(tag) {
                *is_acked = true;
            }
        }
        let mut steps = Vec::new();
        let mut prefix = None;
        while let Some(first) = self.open.first_entry() {
            if !first.get() || *first.key() > self.arrived_up_to {
                break;
            }
            prefix = Some(first.remove_entry().0);
        }
        steps.extend(prefix.map(Step::UpTo));
        for tag in tags {
            if self.open.remove(&tag).is_some() {
                steps.push(Step::One(tag));
            }
        }
        steps
    }

    /// Notes that a handler has a delivery no longer and has not acked it.
    pub(crate) fn returned(&mut self, tag: u64) {
        self.given_out.remove(&tag);
    }

    /// Takes back a delivery that was returned. `true`: it is given out again from here. `false`:
    /// the broker is to have it back.
    pub(crate) fn again(&mut self, tag: u64) -> bool {
        match self.kept.get_mut(&tag) {
            Some(read) => {
                read.redeliveries += 1;
                self.ready.push_back(tag);
                true
            }
            None => {
                self.open.remove(&tag);
                false
            }
        }
    }

    /// Returns the order that is promised.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Gives out nothing more.
    pub(crate) fn leave(&mut self) {
        self.ready.clear();
        self.lanes.clear();
    }

    /// Says whether handlers have deliveries.
    pub(crate) fn is_given_out(&self) -> bool {
        !self.given_out.is_empty()
    }

    fn free_lane(&mut self, tag: u64) {
        let Some(key) = self.kept.remove(&tag).and_then(|read| read.key) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        lane.pop_front();
        match lane.front() {
            Some(next) => self.ready.push_back(*next),
            None => {
                self.lanes.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sagabus_core::{Envelope, Headers, MessageId};

    use super::*;

    fn read(key: Option<&str>) -> Read {
        Read {
            envelope: Envelope {
                id: MessageId::new(),
                message_type: "t".into(),
                headers: Headers::new(),
                body: Bytes::new(),
            },
            key: key.map(str::to_owned),
            redeliveries: 0,
        }
    }

    fn with(order: Order, keys: &[Option<&str>]) -> InHand {
        let mut in_hand = InHand::new(order);
        for (tag, key) in (1..).zip(keys) {
            in_hand.arrived(tag, read(*key));
        }
        in_hand
    }

    fn given_out(in_hand: &mut InHand) -> Vec<u64> {
        std::iter::from_fn(|| in_hand.next().map(|(tag, _)| tag)).collect()
    }

    #[test]
    fn a_range_is_acked_only_where_nothing_in_it_is_open() {
        let mut in_hand = with(Order::Unordered, &[None; 6]);
        assert_eq!(given_out(&mut in_hand), [1, 2, 3, 4, 5, 6]);
        assert_eq!(in_hand.acked(vec![2, 4]), [Step::One(2), Step::One(4)]);
        assert_eq!(in_hand.acked(vec![3, 1]), [Step::UpTo(3)]);
        in_hand.returned(5);
        assert!(!in_hand.again(5));
        assert_eq!(in_hand.acked(vec![6]), [Step::UpTo(6)]);
        assert!(!in_hand.is_given_out());
    }

    #[test]
    fn a_range_never_covers_what_has_not_arrived() {
        let mut in_hand = InHand::new(Order::Unordered);
        for tag in [1, 4, 3] {
            in_hand.arrived(tag, read(None));
        }
        assert_eq!(given_out(&mut in_hand), [1, 4, 3]);
        let steps = in_hand.acked(vec![4, 1]);
        assert_eq!(steps, [Step::UpTo(1), Step::One(4)]);
        in_hand.arrived(2, read(None));
        assert_eq!(given_out(&mut in_hand), [2]);
        assert_eq!(in_hand.acked(vec![3, 2]), [Step::UpTo(3)]);
    }

    #[test]
    fn where_order_is_promised_a_key_is_given_out_one_by_one() {
        let keys = [Some("a"), Some("a"), Some("b"), None, None];
        let mut in_hand = with(Order::PerKey, &keys);
        assert_eq!(given_out(&mut in_hand), [1, 3, 4, 5]);
        assert_eq!(in_hand.acked(vec![3, 4]), [Step::One(3), Step::One(4)]);
        assert_eq!(given_out(&mut in_hand), [0_u64; 0]);
        assert_eq!(in_hand.acked(vec![1]), [Step::UpTo(1)]);
        assert_eq!(given_out(&mut in_hand), [2]);
    }

    #[test]
    fn a_returned_delivery_keeps_its_place_before_its_key() {
        let mut in_hand = with(Order::PerKey, &[Some("a"), Some("a")]);
        assert_eq!(given_out(&mut in_hand), [1]);
        in_hand.returned(1);
        assert_eq!(given_out(&mut in_hand), [0_u64; 0]);
        assert!(in_hand.again(1));
        let (tag, read) = in_hand.next().unwrap();
        assert_eq!((tag, read.redeliveries), (1, 1));
        assert_eq!(given_out(&mut in_hand), [0_u64; 0]);
    }

    #[test]
    fn nothing_is_given_out_while_leaving() {
        let mut in_hand = with(Order::PerKey, &[Some("a"), Some("a")]);
        assert_eq!(given_out(&mut in_hand), [1]);
        in_hand.leave();
        assert!(in_hand.is_given_out());
        assert_eq!(in_hand.acked(vec![1]), [Step::UpTo(1)]);
        assert_eq!(given_out(&mut in_hand), [0_u64; 0]);
        assert!(!in_hand.is_given_out());
    }
}
