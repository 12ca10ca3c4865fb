//! Plots as SVG.

use std::ops::Range;

use anyhow::anyhow;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (720, 400);

/// Colours of the lines, used in turn. Colour-blind people can distinguish them too (Okabe and
/// Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const FONT: (&str, i32) = ("sans-serif", 14);

pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// Points, from left to right.
    pub points: Vec<Point>,
}

/// A point with the spread of its rounds.
#[derive(Clone, Copy)]
pub struct Point {
    pub x: f64,
    /// Median of the rounds.
    pub y: f64,
    /// Smallest and largest value of the rounds. `None` where the plot does not show them.
    pub spread: Option<(f64, f64)>,
}

/// Plots the latency by percentile of calls. Each further nine has the same width on the x axis: 0,
/// 90, 99, 99.9, 99.99 %.
///
/// # Errors
/// Returns an error when there is nothing to draw.
pub fn plot_distribution(lines: &[Line]) -> anyhow::Result<String> {
    let nines: Vec<_> = lines.iter().map(Line::to_nines).collect();
    let y = padded_range(y_values(&nines))?;
    let axes = Axes {
        x: 0.0..4.0,
        y: y.log_scale(),
        x_name: "percentile of calls",
        y_name: "microseconds, log scale",
        x_label: &|nines| percent_label(*nines),
    };
    axes.draw(&nines)
}

/// Plots a number by the number of users in the database. The x axis is logarithmic. The y axis
/// starts at zero.
///
/// # Errors
/// Returns an error when there is nothing to draw.
pub fn plot_by_users(line: Line, unit: &str) -> anyhow::Result<String> {
    let lines = [line];
    let x = padded_range(lines[0].points.iter().map(|point| point.x))?;
    let top = padded_range(y_values(&lines))?.end;
    let axes = Axes {
        x: x.log_scale(),
        y: 0.0..top,
        x_name: "users in the database, log scale",
        y_name: unit,
        x_label: &|users| format!("{users:.0}"),
    };
    axes.draw(&lines)
}

struct Axes<'a, X, Y> {
    x: X,
    y: Y,
    x_name: &'a str,
    y_name: &'a str,
    x_label: &'a dyn Fn(&f64) -> String,
}

impl<X, Y> Axes<'_, X, Y>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    fn draw(self, lines: &[Line]) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw_into(&mut svg, lines).map_err(|error| anyhow!("a plot: {error}"))?;
        Ok(svg)
    }

    fn draw_into(self, svg: &mut String, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(36)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(self.x, self.y)?;
        chart
            .configure_mesh()
            .x_labels(5)
            .light_line_style(TRANSPARENT)
            .x_desc(self.x_name)
            .y_desc(self.y_name)
            .x_label_formatter(self.x_label)
            .y_label_formatter(&|value| format!("{value:.0}"))
            .label_style(FONT)
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
            let points = line.points.iter().map(|point| (point.x, point.y));
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
            chart.draw_series(points.map(|position| Circle::new(position, 3, colour.filled())))?;
            chart.draw_series(line.points.iter().filter_map(|point| {
                let (least, most) = point.spread?;
                Some(PathElement::new([(point.x, least), (point.x, most)], colour))
            }))?;
        }
        if lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .label_font(FONT)
                .draw()?;
        }
        area.present()?;
        drop(chart);
        Ok(())
    }
}

impl Line {
    /// Converts each quantile to its number of nines. Omits the slowest call (quantile 1), whose
    /// number of nines is infinite.
    fn to_nines(&self) -> Self {
        let finite_points = self.points.iter().filter(|point| point.x < 1.0);
        let points = finite_points.map(|point| Point { x: nines(point.x), ..*point }).collect();
        Self { name: self.name.clone(), points }
    }
}

/// Number of nines of a quantile: 2 for 0.99.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// Label of the quantile with this number of nines.
fn percent_label(nines: f64) -> String {
    let percent = 100.0 - 100.0 / 10_f64.powf(nines);
    format!("{} %", (percent * 1000.0).round() / 1000.0)
}

/// The y values of all points; for a point with a spread, its smallest and largest value.
fn y_values(lines: &[Line]) -> impl Iterator<Item = f64> {
    let points = lines.iter().flat_map(|line| &line.points);
    points.flat_map(|point| {
        let (least, most) = point.spread.unwrap_or((point.y, point.y));
        [least, most]
    })
}

/// A range that leaves some space around the positive values.
fn padded_range(values: impl Iterator<Item = f64>) -> anyhow::Result<Range<f64>> {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| *value > 0.0) {
        (least, most) = (least.min(value), most.max(value));
    }
    if most > 0.0 { Ok(least * 0.8..most * 1.25) } else { Err(anyhow!("nothing to plot")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_has_the_same_width() {
        for (quantile, expected) in [(0.0, 0.0), (0.9, 1.0), (0.99, 2.0), (0.9999, 4.0)] {
            assert!((nines(quantile) - expected).abs() < 1e-9, "{quantile}");
        }
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(percent_label), ["0 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn a_plot_contains_the_names_of_its_lines() {
        let point = |x, y| Point { x, y, spread: Some((y * 0.9, y * 1.1)) };
        let line = |name: &str, points: &[(f64, f64)]| Line {
            name: name.into(),
            points: points.iter().map(|(x, y)| point(*x, *y)).collect(),
        };
        let times = [(0.0, 20.0), (0.5, 80.0), (0.99, 400.0), (1.0, 9000.0)];
        let svg = plot_distribution(&[line("health", &times), line("Check", &times)])
            .expect("the plot is drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("health") && svg.contains("Check") && svg.contains("99.9 %"));

        let costs = [(1e3, 100_000.0), (1e5, 99_000.0), (1e7, 98_000.0)];
        let svg = plot_by_users(line("calls", &costs), "calls/s").expect("the plot is drawn");
        assert!(svg.contains("calls/s") && svg.contains("100000"), "{svg}");
        assert!(plot_by_users(line("none", &[]), "calls/s").is_err());
    }
}
