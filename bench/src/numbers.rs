//! The chart of the README: drawn from the table below its heading "Numbers", so that the two say the
//! same.

use anyhow::{Context as _, Result, ensure};

use crate::chart::{self, Bar};

/// The heading of the table.
const HEADING: &str = "## Numbers";
/// How the line begins that says when the table was measured.
const RECORDED: &str = "Recorded ";
/// Where the chart is, below the root of the work tree.
pub(crate) const CHART: &str = "docs/bench/numbers.svg";
/// Where the table is.
pub(crate) const README: &str = "README.md";

/// Draws the table of a README.
pub(crate) fn drawn(readme: &str) -> Result<String> {
    let (_, section) = readme.split_once(HEADING).context("no such heading")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut lines = section.lines();
    let recorded = lines.find_map(|line| line.strip_prefix(RECORDED));
    let recorded = recorded.with_context(|| format!("no line begins with `{RECORDED}`"))?;
    let mut what = String::new();
    let mut bars = Vec::new();
    // Heading and rule are no figures.
    for row in section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, on, rate, ratio] = cells[..] else {
            anyhow::bail!("`{row}` has not four cells");
        };
        if !name.is_empty() {
            name.clone_into(&mut what);
        }
        bars.push(bar(format!("{what}, {on}: {rate}"), ratio)?);
    }
    ensure!(!bars.is_empty(), "the table has no rows");
    let title = format!("ours / by hand, median and range; recorded {recorded}");
    Ok(chart::bars(&title, &bars))
}

/// Reads `1.03 (0.97-1.09)`.
fn bar(label: String, ratio: &str) -> Result<Bar> {
    let read = || {
        let (value, range) = ratio.split_once(" (")?;
        let (min, max) = range.strip_suffix(')')?.split_once('-')?;
        let number = |text: &str| text.parse::<f64>().ok();
        Some((number(value)?, number(min)?, number(max)?))
    };
    let (value, min, max) = read().with_context(|| format!("`{ratio}` is no ratio"))?;
    Ok(Bar {
        label,
        value,
        min,
        max,
        promised: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_of_the_readme_is_drawn_from_its_table() {
        let drawn = drawn(include_str!("../../README.md")).unwrap();
        let chart = include_str!("../../docs/bench/numbers.svg");
        assert!(drawn == chart, "`cargo xtask bench chart` draws it anew");
    }

    #[test]
    fn what_cannot_be_read_is_no_bar() {
        let table = |row: &str| {
            drawn(&format!(
                "## Numbers\n\nRecorded today.\n\n| a | b | c | d |\n|---|---|---|---|\n{row}\n"
            ))
        };
        assert!(table("| H1 | SQLite | 1k/s | 1.03 (0.97-1.09) |").is_ok());
        assert!(table("| H1 | SQLite | 1k/s | fast |").is_err());
        assert!(table("| H1 | SQLite | 1.03 (0.97-1.09) |").is_err());
        assert!(table("").is_err());
        assert!(drawn("# Other").is_err());
    }
}
