//! The report of a run: a table, and files with all values.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, time::Duration};

use anyhow::Context;
use serde::Serialize;

use super::{
    meter::{Counts, Meter},
    plot,
    series::{Figure, Limit, Series},
};

/// Number of failed calls that are accepted, for each thousand calls.
const ACCEPTED_FAILURES: u64 = 1;

/// All values of a run.
#[derive(Default)]
pub struct Values {
    series: Vec<Series>,
}

#[derive(Serialize)]
pub struct Report {
    seconds: f64,
    rate: u32,
    replicas: usize,
    calls: u64,
    failed_calls: u64,
    /// Number of occurrences of each message of a failed or retried call.
    failures: BTreeMap<String, u64>,
    /// Methods of the service without a successful call.
    methods_not_called: Vec<String>,
    methods: BTreeMap<String, Counts>,
    /// Bytes of the audit trail for each call.
    trail_bytes_per_call: f64,
    figures: Vec<Row>,
    #[serde(skip)]
    values: Values,
}

/// A figure in the report: the medians of its values in fifths of the run.
#[derive(Serialize)]
struct Row {
    chart: &'static str,
    line: String,
    /// First fifth.
    start: f64,
    /// Second fifth, with which the end is compared.
    early: f64,
    /// Third fifth.
    middle: f64,
    /// Last fifth.
    end: f64,
    limit: Limit,
    grew: bool,
}

impl Values {
    pub fn add(&mut self, time: Duration, figures: &[Figure]) {
        for figure in figures {
            let is_same =
                |series: &Series| series.chart == figure.chart && series.line == figure.line;
            let index = self.series.iter().position(is_same).unwrap_or_else(|| {
                self.series.push(Series::new(figure));
                self.series.len() - 1
            });
            self.series[index].points.push((time.as_secs_f64(), figure.value));
        }
    }

    /// The series of each chart.
    fn charts(&self) -> Vec<Vec<&Series>> {
        let mut charts: Vec<Vec<&Series>> = Vec::new();
        for series in &self.series {
            match charts.iter_mut().find(|lines| lines[0].chart == series.chart) {
                Some(lines) => lines.push(series),
                None => charts.push(vec![series]),
            }
        }
        charts
    }

    /// A line for each sample, with a column for each figure.
    fn csv(&self) -> Result<String, std::fmt::Error> {
        let mut text = "seconds".to_owned();
        for series in &self.series {
            write!(text, ",\"{}: {}\"", series.chart, series.line)?;
        }
        let Some(first) = self.series.first() else { return Ok(text) };
        for (index, (time, _)) in first.points.iter().enumerate() {
            write!(text, "\n{time:.1}")?;
            for series in &self.series {
                match series.points.get(index) {
                    Some((_, value)) => write!(text, ",{value:.3}")?,
                    None => text.push(','),
                }
            }
        }
        text.push('\n');
        Ok(text)
    }
}

impl Report {
    pub fn new(
        duration: Duration,
        rate: u32,
        replicas: usize,
        meter: &Meter,
        values: Values,
    ) -> Self {
        let methods = meter.methods();
        let not_called = methods.iter().filter(|(_, counts)| counts.succeeded == 0);
        let methods_not_called = not_called.map(|(name, _)| name.clone()).collect();
        let failed_calls = methods.values().map(|counts| counts.failed).sum();
        let calls = failed_calls + methods.values().map(|counts| counts.succeeded).sum::<u64>();
        let row = |series: &Series| {
            let median = |fifth| series.median_of_fifth(fifth).unwrap_or_default();
            Row {
                chart: series.chart,
                line: series.line.clone(),
                start: median(0),
                early: median(1),
                middle: median(2),
                end: median(4),
                limit: series.limit,
                grew: series.grew(),
            }
        };
        Self {
            seconds: duration.as_secs_f64(),
            rate,
            replicas,
            calls,
            failed_calls,
            failures: meter.failures(),
            methods_not_called,
            methods,
            trail_bytes_per_call: trail_bytes(&values) / super::to_f64(calls.max(1)),
            figures: values.series.iter().map(row).collect(),
            values,
        }
    }

    /// Whether no figure grew, all methods were called, and nearly all calls succeeded.
    pub fn is_good(&self) -> bool {
        self.figures.iter().all(|row| !row.grew)
            && self.methods_not_called.is_empty()
            && self.failed_calls * 1000 <= self.calls * ACCEPTED_FAILURES
    }

    /// The report as text.
    ///
    /// # Errors
    /// Never: writing to a string cannot fail.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "\n{:<44} {:<20} {:>11} {:>11} {:>11} {:>11}",
            "figure (medians of fifths of the run)", "", "start", "early", "middle", "end"
        )?;
        for row in &self.figures {
            let note = match row.limit {
                _ if row.grew => "GREW",
                Limit::None { why } => why,
                Limit::Tolerance { .. } => "",
            };
            writeln!(
                text,
                "{:<44} {:<20} {:>11.1} {:>11.1} {:>11.1} {:>11.1}  {note}",
                row.chart, row.line, row.start, row.early, row.middle, row.end
            )?;
        }
        let (calls, failed) = (self.calls, self.failed_calls);
        let seconds = self.seconds;
        writeln!(text, "\n{calls} calls in {seconds:.0} s, {failed} of them failed")?;
        writeln!(text, "the audit trail grew by {:.0} bytes per call", self.trail_bytes_per_call)?;
        for (failure, count) in &self.failures {
            writeln!(text, "  {count} {failure}")?;
        }
        if !self.methods_not_called.is_empty() {
            writeln!(text, "methods without a call: {}", self.methods_not_called.join(", "))?;
        }
        let grown = self.figures.iter().filter(|row| row.grew).count();
        writeln!(text, "{grown} figures grew")?;
        Ok(text)
    }

    /// Writes `report.json`, `samples.csv` and `plots.html`.
    ///
    /// # Errors
    /// Returns an error when a file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("report.json", serde_json::to_string_pretty(self)?)?;
        write("samples.csv", self.values.csv()?)?;
        let title = format!("Tenantry: {:.0} minutes of steady load", self.seconds / 60.0);
        write("plots.html", plot::page(&title, &self.values.charts())?)
    }
}

/// Growth of the audit trail from the first sample to the last, in bytes.
fn trail_bytes(values: &Values) -> f64 {
    let series = values.series.iter().find(|series| series.line == "audit trail");
    let points = series.map(|series| series.points.as_slice()).unwrap_or_default();
    let (Some((_, first)), Some((_, last))) = (points.first(), points.last()) else { return 0.0 };
    (last - first) * 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of 100 seconds with one figure. `value_at` returns its value at each second. Each
    /// method was called once.
    fn report(value_at: impl Fn(f64) -> f64) -> Report {
        let mut values = Values::default();
        for second in 0..100_u32 {
            let limit = Limit::Tolerance { share: 0.1, amount: 5.0 };
            let value = value_at(f64::from(second));
            let figure = Figure { chart: "rows", line: "users".to_owned(), value, limit };
            values.add(Duration::from_secs(second.into()), &[figure]);
        }
        let meter = Meter::new().expect("the descriptors are valid");
        for method in meter.methods().into_keys() {
            meter.succeeded(&method, Duration::from_millis(1));
        }
        Report::new(Duration::from_secs(100), 1, 2, &meter, values)
    }

    #[test]
    fn a_run_in_which_a_figure_grew_is_not_good() {
        assert!(report(|_| 100.0).is_good());
        let grown = report(|second| 100.0 + second);
        assert!(!grown.is_good());
        assert!(grown.text().expect("text").contains("GREW"));
    }

    #[test]
    fn a_run_in_which_calls_failed_is_not_good() {
        let mut report = report(|_| 100.0);
        report.failed_calls = 1;
        assert!(!report.is_good());
    }

    #[test]
    fn all_values_are_in_the_csv_and_in_the_plots() {
        let report = report(|second| second);
        let csv = report.values.csv().expect("text");
        assert!(csv.starts_with("seconds,\"rows: users\"\n0.0,0.000\n1.0,1.000\n"), "{csv}");
        let page = plot::page("Plots", &report.values.charts()).expect("a page");
        assert!(page.contains("<svg") && page.contains("users"), "{page}");
    }
}
