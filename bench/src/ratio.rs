//! What is divided by what, how steady that was, and what was promised.

use serde::{Deserialize, Serialize};

use crate::calibration::median;

/// How far repetitions may lie apart: the median distance from their median, divided by it.
pub(crate) const SPREAD_MAX: f64 = 0.15;

/// One division, once per repetition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The median distance of repetitions from the median, divided by it.
    pub(crate) spread: f64,
}

impl Ratio {
    pub(crate) fn of(what: impl Into<String>, mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let middle = (values[last / 2] + values[last.div_ceil(2)]) / 2.0;
        let apart = values.iter().map(|value| (value - middle).abs()).collect();
        Some(Self {
            what: what.into(),
            median: middle,
            min: values[0],
            max: values[last],
            spread: median(apart) / middle,
        })
    }

    /// Says so if repetitions lay too far apart.
    pub(crate) fn noise(&self) -> Option<String> {
        let percent = self.spread * 100.0;
        let what = &self.what;
        // What is not a number is no figure either.
        let is_steady = self.spread <= SPREAD_MAX;
        (!is_steady).then(|| format!("repetitions of {what} spread by {percent:.0} %"))
    }
}

/// A figure that has to be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Promise {
    pub(crate) what: String,
    pub(crate) is: f64,
    pub(crate) must: Must,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Must {
    AtLeast(f64),
    AtMost(f64),
}

impl Promise {
    pub(crate) fn new(what: impl Into<String>, is: f64, must: Must) -> Self {
        let what = what.into();
        Self { what, is, must }
    }

    pub(crate) fn is_kept(&self) -> bool {
        match self.must {
            Must::AtLeast(limit) => self.is >= limit,
            Must::AtMost(limit) => self.is <= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_median_distance_from_the_median() {
        let ratio = Ratio::of("rate", vec![1.0, 0.8, 1.3, 0.9, 1.1]).unwrap();
        assert!((ratio.median - 1.0).abs() < 1e-9);
        assert!((ratio.spread - 0.1).abs() < 1e-9, "{}", ratio.spread);
        assert_eq!(ratio.noise(), None);
        assert!(Ratio::of("rate", Vec::new()).is_none());
    }

    #[test]
    fn one_wild_repetition_is_no_noise_and_three_of_five_are() {
        let one = Ratio::of("rate", vec![1.0, 1.0, 1.0, 1.0, 9.0]).unwrap();
        assert_eq!(one.noise(), None);
        let many = Ratio::of("rate", vec![0.2, 0.6, 1.0, 1.4, 1.8]).unwrap();
        assert_eq!(many.noise().unwrap(), "repetitions of rate spread by 40 %");
    }

    #[test]
    fn what_is_not_a_number_is_noise() {
        let ratio = Ratio::of("rate", vec![f64::NAN; 3]).unwrap();
        assert!(ratio.noise().is_some());
    }
}
