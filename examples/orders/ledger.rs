//! Checks the shop: reads the gateway's file and the shop's own tables, and nothing of the bus's.
//!
//! What is read first is never ahead of what is read after it, so that the check may be made while
//! orders are under way, and over several databases: ends, then parcels and our books, then the
//! gateway's file, then the orders.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::database::Books;
use crate::gateway::{self, Kind};
use crate::shop::euros;

/// Faults that are printed; more would only scroll the first ones away.
const FAULTS_SHOWN: usize = 20;

/// What the books say.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Ledger {
    pub(crate) placed: usize,
    pub(crate) finished: usize,
    pub(crate) cancelled: usize,
    pub(crate) under_way: usize,
    /// Why orders were cancelled, with counts.
    pub(crate) reasons: BTreeMap<String, usize>,
    pub(crate) charges: usize,
    pub(crate) charged_cents: i64,
    pub(crate) refunds: usize,
    pub(crate) refunded_cents: i64,
    /// Money of orders under way: nothing can be said about it yet.
    pub(crate) held_cents: i64,
    /// What the finished orders cost.
    pub(crate) finished_cents: i64,
    pub(crate) parcels: usize,
    pub(crate) declines: usize,
    /// Calls that came a second time and moved nothing.
    pub(crate) repeats: usize,
    /// What is off, one sentence each.
    pub(crate) faults: Vec<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every order has ended once and the money adds up.
    Balanced,
    /// Something is off.
    Off,
    /// Nothing is off, but orders are under way.
    UnderWay,
}

/// Everything known about one order.
#[derive(Default)]
struct Record {
    /// The price, once the order's row was seen.
    cents: Option<i64>,
    /// One entry per end; none: finished.
    ends: Vec<Option<String>>,
    parcels: usize,
    /// Charges and refunds as the gateway has them, in cents.
    charges: Vec<i64>,
    refunds: Vec<i64>,
    /// Our own books.
    booked: Vec<i64>,
}

impl Ledger {
    /// Reads everything and adds it up.
    ///
    /// # Errors
    /// When the database or the gateway's file cannot be read.
    pub(crate) async fn read(folder: &Path, books: &Books) -> Result<Self> {
        const ENDS: &str = "select order_id, reason from ends";
        const PARCELS: &str = "select order_id from shipments";
        const BOOKED: &str = "select order_id, cents from payments";
        const PLACED: &str = "select id, cents from orders";
        let mut orders: BTreeMap<i64, Record> = BTreeMap::new();
        let mut ledger = Self::default();
        for (id, reason) in books.orders.rows::<(i64, Option<String>)>(ENDS).await? {
            orders.entry(id).or_default().ends.push(reason);
        }
        for (id,) in books.shipping.rows::<(i64,)>(PARCELS).await? {
            orders.entry(id).or_default().parcels += 1;
        }
        for (id, cents) in books.payments.rows::<(i64, i64)>(BOOKED).await? {
            orders.entry(id).or_default().booked.push(cents);
        }
        ledger.read_gateway(folder, &mut orders)?;
        for (id, cents) in books.orders.rows::<(i64, i64)>(PLACED).await? {
            orders.entry(id).or_default().cents = Some(cents);
        }
        orders
            .iter()
            .for_each(|(id, record)| ledger.add(*id, record));
        ledger.add_up();
        Ok(ledger)
    }

    fn read_gateway(&mut self, folder: &Path, orders: &mut BTreeMap<i64, Record>) -> Result<()> {
        let (lines, _) = gateway::read(&gateway::file_in(folder))?;
        let mut decided = HashSet::new();
        for line in lines {
            let record = orders.entry(line.order).or_default();
            match line.kind {
                Kind::Charge => record.charges.push(line.cents),
                Kind::Refund => record.refunds.push(line.cents),
                Kind::Decline => self.declines += 1,
                Kind::Repeat => self.repeats += 1,
                Kind::Pending => {}
            }
            let is_decision = !matches!(line.kind, Kind::Repeat | Kind::Pending);
            if is_decision && !decided.insert(line.key.clone()) {
                let key = &line.key;
                self.faults
                    .push(format!("the gateway decided twice about key {key}"));
            }
        }
        Ok(())
    }

    /// Adds one order and says what is off about it.
    fn add(&mut self, id: i64, record: &Record) {
        let mut off = |fact: String| self.faults.push(format!("order {id} {fact}"));
        let (charged, refunded): (i64, i64) =
            (record.charges.iter().sum(), record.refunds.iter().sum());
        let Some(cents) = record.cents else {
            return off("was never placed, but something was done for it".to_owned());
        };
        if record.charges.len() > 1 {
            off(format!("was charged {} times", record.charges.len()));
        }
        if record.refunds.len() > 1 {
            off(format!("was refunded {} times", record.refunds.len()));
        }
        if record
            .charges
            .iter()
            .chain(&record.refunds)
            .any(|moved| *moved != cents)
        {
            off(format!("costs {}, but another sum was moved", euros(cents)));
        }
        if record.parcels > 1 {
            off(format!("was shipped {} times", record.parcels));
        }
        let (booked_in, booked_out): (Vec<i64>, Vec<i64>) =
            record.booked.iter().partition(|cents| **cents > 0);
        for (booked, moved, what) in [
            (booked_in, &record.charges, "charge"),
            (booked_out, &record.refunds, "refund"),
        ] {
            let is_whole = booked.len() == moved.len() || record.ends.is_empty();
            if booked.len() > moved.len() || !is_whole {
                off(format!(
                    "has {} {what}(s) in our books and {} at the gateway",
                    booked.len(),
                    moved.len()
                ));
            }
        }
        match record.ends.as_slice() {
            [] => {}
            [None] if record.parcels == 0 => off("finished without a parcel".to_owned()),
            [None] if charged - refunded != cents => {
                off(format!(
                    "costs {} and finished with {}",
                    euros(cents),
                    euros(charged - refunded)
                ));
            }
            [Some(_)] if record.parcels > 0 => off("was cancelled and shipped".to_owned()),
            [Some(_)] if charged != refunded => {
                off(format!(
                    "was cancelled, and {} were kept",
                    euros(charged - refunded)
                ));
            }
            [_] => {}
            ends => off(format!("ended {} times", ends.len())),
        }
        self.count(record, cents, charged, refunded);
    }

    fn count(&mut self, record: &Record, cents: i64, charged: i64, refunded: i64) {
        self.placed += 1;
        self.parcels += record.parcels;
        self.charges += record.charges.len();
        self.refunds += record.refunds.len();
        self.charged_cents += charged;
        self.refunded_cents += refunded;
        match record.ends.first() {
            None => {
                self.under_way += 1;
                self.held_cents += charged - refunded;
            }
            Some(None) => {
                self.finished += 1;
                self.finished_cents += cents;
            }
            Some(Some(reason)) => {
                self.cancelled += 1;
                *self.reasons.entry(reason.clone()).or_default() += 1;
            }
        }
    }

    /// Checks the sums once more as a whole, independent of what was found order by order.
    fn add_up(&mut self) {
        let ended = self.finished + self.cancelled + self.under_way;
        if self.placed != ended {
            self.faults.push(format!(
                "{} orders were placed, {ended} are known",
                self.placed
            ));
        }
        let kept = self.charged_cents - self.refunded_cents - self.held_cents;
        if kept != self.finished_cents {
            let (kept, cost) = (euros(kept), euros(self.finished_cents));
            self.faults
                .push(format!("{kept} were kept, the finished orders cost {cost}"));
        }
    }

    /// Says how the check came out.
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.faults.is_empty(), self.under_way) {
            (false, _) => Verdict::Off,
            (true, 0) => Verdict::Balanced,
            (true, _) => Verdict::UnderWay,
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count =
            |what: &str, n: usize, more: String| writeln!(f, "  {what:<22}{n:>8}   {more}");
        count("orders placed", self.placed, String::new())?;
        count("  finished", self.finished, euros(self.finished_cents))?;
        let reasons = self
            .reasons
            .iter()
            .map(|(reason, n)| format!("{n} {reason}"));
        count(
            "  cancelled",
            self.cancelled,
            reasons.collect::<Vec<_>>().join("; "),
        )?;
        count("  under way", self.under_way, String::new())?;
        count("parcels", self.parcels, String::new())?;
        count("cards charged", self.charges, euros(self.charged_cents))?;
        count("  given back", self.refunds, euros(self.refunded_cents))?;
        count("  declined", self.declines, String::new())?;
        count(
            "calls repeated",
            self.repeats,
            "no money moved by these".to_owned(),
        )?;
        for fault in self.faults.iter().take(FAULTS_SHOWN) {
            writeln!(f, "OFF: {fault}")?;
        }
        if let Some(more) = self.faults.len().checked_sub(FAULTS_SHOWN + 1) {
            writeln!(f, "OFF: and {} more", more + 1)?;
        }
        match self.verdict() {
            Verdict::Balanced => write!(
                f,
                "BALANCED: every order ended once, {} were taken, {} given back, and the difference \
                 is the price of the finished orders",
                euros(self.charged_cents),
                euros(self.refunded_cents)
            ),
            Verdict::Off => write!(f, "DOES NOT BALANCE"),
            Verdict::UnderWay => write!(
                f,
                "NOT OVER: {} orders are under way; nothing is off so far, start the demo again to \
                 let them end",
                self.under_way
            ),
        }
    }
}
