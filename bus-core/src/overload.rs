//! Whether an API may send: not while what was sent before waits for too long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::BusError;

/// What the bus knows of its outbox's age.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// Older than this is too old; `None`: nothing is.
    limit: Option<Duration>,
    oldest: Mutex<Option<(String, Duration)>>,
}

impl Overload {
    /// Refuses nothing, until it is measured.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            oldest: Mutex::default(),
        }
    }

    /// Says whether the age matters at all.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Notes which destination's longest due row is how old.
    pub(crate) fn measured(&self, oldest: Option<(String, Duration)>) {
        let is_too_old = |(_, age): &(String, Duration)| self.limit.is_some_and(|max| *age > max);
        let oldest = oldest.filter(is_too_old);
        let mut known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &oldest) {
            (None, Some((destination, age))) => {
                let seconds = age.as_secs_f64();
                tracing::warn!(
                    destination,
                    seconds,
                    "the outbox is too old; sending is refused"
                );
            }
            (Some(_), None) => tracing::info!("the outbox is young again; sending goes on"),
            _ => {}
        }
        *known = oldest;
    }

    /// Refuses while something is too old.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            None => Ok(()),
            Some((destination, age)) => Err(BusError::Overloaded {
                destination: destination.clone(),
                age: *age,
                limit,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_is_refused_while_a_row_is_older_than_allowed() {
        let seconds = Duration::from_secs;
        let oldest = |age| Some(("orders".to_owned(), seconds(age)));
        let unlimited = Overload::default();
        unlimited.measured(oldest(1_000_000));
        assert!(unlimited.check().is_ok());
        let limited = Overload::new(Some(seconds(60)));
        assert!(limited.check().is_ok());
        limited.measured(oldest(60));
        assert!(limited.check().is_ok());
        limited.measured(oldest(61));
        let error = limited.check().expect_err("it is too old").to_string();
        assert!(
            error.contains("`orders`") && error.contains("61s"),
            "{error}"
        );
        limited.measured(None);
        assert!(limited.check().is_ok());
    }
}
