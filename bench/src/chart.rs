//! Charts as SVG, written by hand: bars with the range of repetitions, and curves of growth.

use std::fmt::Write as _;

/// Colours that stay apart in grey and for the colour-blind.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
];
const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";

/// One bar: a figure with its range, and what was promised.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) promised: Option<f64>,
}

/// One curve: a name and points, each with what stands below it.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) label: String,
    pub(crate) points: Vec<(String, f64)>,
}

/// Draws bars below each other; the line is where ours and the other one are equal.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    const WIDE: f64 = 420.0;
    const HIGH: f64 = 22.0;
    /// A letter of the font, on average and rounded up.
    const LETTER: f64 = 6.4;
    let longest = bars.iter().map(|bar| bar.label.chars().count()).max();
    let left = (longest.unwrap_or_default() as f64 * LETTER + 16.0).max(300.0);
    let most = bars.iter().map(|bar| bar.max).fold(1.0_f64, f64::max);
    let at = |value: f64| left + value / most * WIDE;
    let height = 60.0 + HIGH * bars.len() as f64;
    let mut svg = open(left + WIDE + 120.0, height, title);
    for (n, bar) in bars.iter().enumerate() {
        let y = 40.0 + HIGH * n as f64;
        let (x, end) = (at(0.0), at(bar.value));
        let (low, high) = (at(bar.min), at(bar.max));
        let (top, middle, base) = (y + 2.0, y + HIGH / 2.0, y + 15.0);
        text(&mut svg, (left - 8.0, base), "end", &bar.label);
        let (width, tall, colour) = (end - x, HIGH - 6.0, COLOURS[0]);
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>"
            ),
        );
        line(&mut svg, (low, middle), (high, middle), "#000000");
        if let Some(promised) = bar.promised {
            let x = at(promised);
            line(&mut svg, (x, y), (x, y + HIGH - 2.0), COLOURS[1]);
        }
        let shown = format!("{:.2}", bar.value);
        text(&mut svg, (high.max(end) + 6.0, base), "start", &shown);
    }
    line(
        &mut svg,
        (at(1.0), 36.0),
        (at(1.0), height - 18.0),
        "#888888",
    );
    text(&mut svg, (at(1.0), height - 4.0), "middle", "1.0");
    svg + "</svg>\n"
}

/// Draws curves over the same steps, which stand apart evenly, from zero.
pub(crate) fn curves(title: &str, unit: &str, curves: &[Curve]) -> String {
    const LEFT: f64 = 80.0;
    const TOP: f64 = 50.0;
    const WIDE: f64 = 460.0;
    const HIGH: f64 = 240.0;
    let values = curves.iter().flat_map(|curve| &curve.points);
    let most = values
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(LEFT + WIDE + 260.0, TOP + HIGH + 40.0, title);
    let (base, right) = (TOP + HIGH, LEFT + WIDE);
    line(&mut svg, (LEFT, base), (right, base), "#888888");
    line(&mut svg, (LEFT, TOP), (LEFT, base), "#888888");
    text(&mut svg, (LEFT - 8.0, TOP + 4.0), "end", &short(most));
    text(&mut svg, (LEFT - 8.0, base), "end", "0");
    text(&mut svg, (LEFT, TOP - 10.0), "start", unit);
    let steps: &[(String, f64)] = curves
        .iter()
        .map(|curve| curve.points.as_slice())
        .max_by_key(|points| points.len())
        .unwrap_or_default();
    let last = steps.len().saturating_sub(1).max(1) as f64;
    let at = |n: usize, value: f64| (LEFT + n as f64 / last * WIDE, base - value / most * HIGH);
    for (n, step) in steps.iter().enumerate() {
        text(&mut svg, (at(n, 0.0).0, base + 18.0), "middle", &step.0);
    }
    for (n, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let mut before = None;
        for (n, (_, value)) in curve.points.iter().enumerate() {
            let here = at(n, *value);
            if let Some(before) = before.replace(here) {
                line(&mut svg, before, here, colour);
            }
            let (x, y) = here;
            put(
                &mut svg,
                format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"),
            );
        }
        let y = TOP + 18.0 * n as f64;
        line(&mut svg, (right + 16.0, y), (right + 36.0, y), colour);
        text(&mut svg, (right + 42.0, y + 4.0), "start", &curve.label);
    }
    svg + "</svg>\n"
}

/// Puts charts of the same size below each other.
pub(crate) fn below_each_other(charts: &[String]) -> String {
    const WIDE: f64 = 800.0;
    const HIGH: f64 = 330.0;
    let mut svg = open(WIDE, HIGH * charts.len() as f64, "");
    for (n, chart) in charts.iter().enumerate() {
        let y = HIGH * n as f64;
        svg += &chart.replacen("<svg ", &format!("<svg y=\"{y:.0}\" "), 1);
    }
    svg + "</svg>\n"
}

fn open(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, (12.0, 20.0), "start", title);
    svg
}

fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = writeln!(svg, "{what}"); // Writing to a string cannot fail.
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    put(
        svg,
        format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {FONT}>{words}</text>"
        ),
    );
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    put(
        svg,
        format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ),
    );
}

/// Writes a number with few letters.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 1e3 => format!("{:.1}k", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_figure_and_names_are_escaped() {
        let bar = |label: &str, value| Bar {
            label: label.to_owned(),
            value,
            min: value,
            max: value,
            promised: None,
        };
        let svg = bars("ours / bare", &[bar("one", 2.0), bar("a < b", 1.0)]);
        assert!(svg.contains("width=\"420.0\""), "{svg}");
        assert!(svg.contains("width=\"210.0\""), "{svg}");
        assert!(svg.contains(">a &lt; b</text>"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn curves_begin_at_zero_and_end_at_the_most() {
        let curve = Curve {
            label: "inbox".to_owned(),
            points: vec![("1k".to_owned(), 50.0), ("1M".to_owned(), 100.0)],
        };
        let svg = curves("growth", "messages/s", &[curve]);
        assert!(svg.contains("cx=\"80.0\" cy=\"170.0\""), "{svg}");
        assert!(svg.contains("cx=\"540.0\" cy=\"50.0\""), "{svg}");
        assert!(curves("nothing", "", &[]).ends_with("</svg>\n"));
        let both = below_each_other(&[svg.clone(), svg]);
        assert!(both.contains("<svg y=\"330\" "), "{both}");
        assert_eq!(both.matches("</svg>").count(), 3);
    }
}
