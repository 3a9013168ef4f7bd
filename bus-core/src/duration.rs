//! Durations written as people say them.

use std::time::Duration;

/// Makes durations of whole numbers: `15.minutes()`.
///
/// A duration that does not fit is the longest one. There is no negative duration: a negative
/// number of type `i32` makes an empty one, and `-5.minutes()` does not compile.
///
/// ```
/// use std::time::Duration;
///
/// use sagabus_core::DurationExt;
///
/// assert_eq!(200.millis(), Duration::from_millis(200));
/// assert_eq!(15.minutes(), Duration::from_secs(900));
/// ```
pub trait DurationExt: Sized {
    /// Returns this many milliseconds.
    fn millis(self) -> Duration;

    /// Returns this many seconds.
    fn secs(self) -> Duration;

    /// Returns this many minutes.
    fn minutes(self) -> Duration;

    /// Returns this many hours.
    fn hours(self) -> Duration;

    /// Returns this many days of 24 hours.
    fn days(self) -> Duration;
}

impl DurationExt for u64 {
    fn millis(self) -> Duration {
        Duration::from_millis(self)
    }

    fn secs(self) -> Duration {
        Duration::from_secs(self)
    }

    fn minutes(self) -> Duration {
        Duration::from_secs(self.saturating_mul(60))
    }

    fn hours(self) -> Duration {
        Duration::from_secs(self.saturating_mul(60 * 60))
    }

    fn days(self) -> Duration {
        Duration::from_secs(self.saturating_mul(24 * 60 * 60))
    }
}

/// Implements `DurationExt` through that of `u64`.
macro_rules! impl_duration_ext {
    ($number:ty, $widen:expr) => {
        impl DurationExt for $number {
            fn millis(self) -> Duration {
                $widen(self).millis()
            }

            fn secs(self) -> Duration {
                $widen(self).secs()
            }

            fn minutes(self) -> Duration {
                $widen(self).minutes()
            }

            fn hours(self) -> Duration {
                $widen(self).hours()
            }

            fn days(self) -> Duration {
                $widen(self).days()
            }
        }
    };
}

impl_duration_ext!(u32, u64::from);
// What a literal is when nothing else says so.
impl_duration_ext!(i32, |number| u64::try_from(number).unwrap_or(0));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_durations_of_their_unit() {
        assert_eq!(200.millis(), Duration::from_millis(200));
        assert_eq!(2_u32.secs(), Duration::from_secs(2));
        assert_eq!(15.minutes(), Duration::from_secs(15 * 60));
        assert_eq!(3_u64.hours(), Duration::from_secs(3 * 3_600));
        assert_eq!(30.days(), Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn what_does_not_fit_is_the_nearest_that_does() {
        assert_eq!((-5).minutes(), Duration::ZERO);
        assert_eq!(u64::MAX.days(), Duration::from_secs(u64::MAX));
    }
}
