//! How far something long is: a bar on a terminal, lines elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::output::Output;

/// Without colours, so that nobody has to turn them off.
const BAR: &str = "{prefix} [{bar:30}] {pos} of {len}, {per_sec}, {eta} left{msg}";
const SPINNER: &str = "{spinner} {msg}, {elapsed}";
/// How often a line says where it is.
const LINE: Duration = Duration::from_secs(1);
/// How often a spinner turns: whoever waits sees that it does.
const TURN: Duration = Duration::from_millis(120);

/// Tells people on standard error how far something is, until it is dropped.
pub(crate) struct Gauge<'a> {
    /// Where standard error is a terminal and the answer is for people.
    bar: Option<ProgressBar>,
    out: &'a Output,
    doing: &'static str,
    total: u64,
    said: Instant,
}

impl<'a> Gauge<'a> {
    /// Begins to tell how many of `total` are done.
    pub(crate) fn new(doing: &'static str, total: u64, out: &'a Output) -> Self {
        let bar = style(BAR, out).map(|style| {
            let bar = ProgressBar::new(total).with_style(style);
            bar.with_prefix(doing)
        });
        Self {
            bar,
            out,
            doing,
            total,
            said: Instant::now(),
        }
    }

    /// Says how many are done, and what else is to be known of them.
    pub(crate) fn at(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(note.to_owned());
            bar.set_position(done);
        } else if self.said.elapsed() >= LINE {
            let (doing, total) = (self.doing, self.total);
            self.out.note(&format!("{doing} {done} of {total}{note}"));
            self.said = Instant::now();
        }
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows on a terminal that something is under way of which nobody knows how far it is, until it is
/// dropped. Says nothing elsewhere.
pub(crate) struct Waiting(Option<ProgressBar>);

impl Waiting {
    pub(crate) fn new(doing: &'static str, out: &Output) -> Self {
        Self(style(SPINNER, out).map(|style| {
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_message(doing);
            bar.enable_steady_tick(TURN);
            bar
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Returns how something is drawn, where it is: for people, on a terminal that moves its cursor.
fn style(template: &str, out: &Output) -> Option<ProgressStyle> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_drawn = out.is_for_people() && io::stderr().is_terminal() && !is_dumb;
    let style = is_drawn.then(|| ProgressStyle::with_template(template))?;
    Some(
        style
            .expect("both templates are tested")
            .progress_chars("=> "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_drawn() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
