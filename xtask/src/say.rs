//! Progress lines, on standard error so that standard output stays for results.

use std::fmt;
use std::io::Write;
use std::time::Duration;

/// A new step of the work.
pub(crate) fn step(what: impl fmt::Display) {
    eprintln!("==> {what}");
}

/// A fact that belongs to the current step.
pub(crate) fn detail(what: impl fmt::Display) {
    eprintln!("    {what}");
}

/// A line of the result, on standard output.
pub(crate) fn result(line: impl fmt::Display) {
    // A reader that has gone away (`| head`) wants no more of it, and our exit code still counts.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A duration as a person reads it: `0.12 s`, `8.3 s`, `2 min 05 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{seconds:.2} s")
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{} min {:02} s",
            duration.as_secs() / 60,
            duration.as_secs() % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_have_units() {
        assert_eq!(time(Duration::from_millis(120)), "0.12 s");
        assert_eq!(time(Duration::from_millis(8_300)), "8.3 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 05 s");
    }
}
