//! What happened, in order: as one number that two runs of a seed share, and as lines for people.

use std::fmt;

/// FNV-1a's offset and prime: no library's hash is promised to stay what it is.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The events of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    is_shown: bool,
}

impl Trace {
    /// Starts without events. One that is shown is printed, line by line.
    pub(crate) fn new(is_shown: bool) -> Self {
        Self {
            hash: OFFSET,
            events: 0,
            is_shown,
        }
    }

    /// Notes an event.
    pub(crate) fn note(&mut self, micros: i64, event: fmt::Arguments<'_>) {
        self.events += 1;
        let mut sink = Sink(&mut self.hash);
        // The sink takes everything.
        let _ = fmt::write(&mut sink, format_args!("{micros} {event}\n"));
        if self.is_shown {
            println!("{:>10.3} {event}", micros as f64 / 1000.0);
        }
    }

    /// Returns the number that all events make, and how many there were.
    pub(crate) fn sum(&self) -> (u64, u64) {
        (self.hash, self.events)
    }
}

struct Sink<'h>(&'h mut u64);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        Ok(())
    }
}
