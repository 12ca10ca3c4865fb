//! HTML report: tables and plots in one file. The page loads no other file and runs no script.

use std::fmt::Write;

use super::{
    Report, Run, ScenarioResult,
    plot::{self, Line, Point},
    table::{median_of, mode_of},
};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px }
th, td { border-bottom: 1px solid #ddd; padding: .25em .75em; text-align: left;
         vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.met { color: #00704f } .missed { color: #b3380d; font-weight: bold }
figure { margin: 1em 0 } svg { max-width: 100%; height: auto }
";

/// Reads one number of a measurement.
type ReadValue = fn(&Run) -> f64;

impl Report {
    /// The whole page.
    ///
    /// # Errors
    /// Returns an error when a plot cannot be drawn.
    pub(super) fn html(&self) -> anyhow::Result<String> {
        let mut page = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
        page += "<title>Tenantry: what decisions cost</title>";
        append(&mut page, format_args!("<style>{STYLE}</style>\n<h1>What decisions cost</h1>\n"));
        page += "<p>Each ratio compares two kinds of calls that were measured alternately, on one \
                 machine. docs/performance.md describes the method.</p>\n";
        if let Some(warning) = self.disturbance_warning() {
            append(&mut page, format_args!("<p class=missed>{}</p>\n", escape_html(&warning)));
        }
        self.write_results(&mut page);
        self.write_distributions(&mut page)?;
        self.write_cost_by_users(&mut page)?;
        self.write_runs(&mut page);
        self.write_machine(&mut page);
        page += "</html>\n";
        Ok(page)
    }

    fn write_results(&self, page: &mut String) {
        *page += "<h2>Results</h2>\n<table><tr><th>scenario<th>result<th class=n>target\
                  <th class=n>median<th class=n>least<th class=n>greatest<th>\n";
        for result in &self.results {
            let ScenarioResult { scenario, name, median, min, max, .. } = result;
            let target = result.target.map(|target| target.to_string()).unwrap_or_default();
            let met = match result.met {
                Some(true) => "<span class=met>met</span>",
                Some(false) => "<span class=missed>missed</span>",
                None => "",
            };
            let note = result
                .note
                .as_deref()
                .map(|note| format!("<br><small>{}</small>", escape_html(note)));
            append(
                page,
                format_args!(
                    "<tr><td>{scenario}<td>{}{}<td class=n>{target}<td class=n>{median:.3}\
                 <td class=n>{min:.3}<td class=n>{max:.3}<td>{met}\n",
                    escape_html(name),
                    note.unwrap_or_default(),
                ),
            );
        }
        *page += "</table>\n";
    }

    /// Latency distributions of the open loops, one plot per scenario.
    fn write_distributions(&self, page: &mut String) -> anyhow::Result<()> {
        let groups = self.runs_by_measurement();
        let mut open_loops: Vec<_> = groups.iter().filter(|runs| runs[0].is_open()).collect();
        if open_loops.is_empty() {
            return Ok(());
        }
        *page += "<h2>Latency</h2>\n<p>Latency from the scheduled send time; median of the \
                  rounds.</p>\n";
        open_loops.sort_by_key(|runs| runs[0].scenario);
        for scenario_groups in open_loops.chunk_by(|a, b| a[0].scenario == b[0].scenario) {
            let lines: Vec<_> =
                scenario_groups.iter().map(|runs| distribution_line(runs)).collect();
            append(
                page,
                format_args!(
                    "<figure><figcaption>{}</figcaption>\n{}</figure>\n",
                    scenario_groups[0][0].scenario,
                    plot::plot_distribution(&lines)?,
                ),
            );
        }
        Ok(())
    }

    /// Cost of a Check by the number of users in the database.
    fn write_cost_by_users(&self, page: &mut String) -> anyhow::Result<()> {
        let groups = self.runs_by_measurement();
        let sizes: Vec<_> = groups.iter().filter(|runs| runs[0].scenario == "size").collect();
        if sizes.is_empty() {
            return Ok(());
        }
        *page += "<h2>Cost by number of users</h2>\n<p>Medians; a vertical line shows the spread \
                  of the rounds.</p>\n";
        let plots: [(&str, bool, ReadValue); 3] = [
            ("calls/s", false, |run| run.per_second),
            ("p50, microseconds", true, |run| run.p50),
            ("p99, microseconds", true, |run| run.p99),
        ];
        for (unit, is_open, read_value) in plots {
            let runs_of_plot =
                sizes.iter().filter(|runs| runs[0].name == "Check" && runs[0].is_open() == is_open);
            let points = runs_of_plot.filter_map(|runs| point_by_users(runs, read_value)).collect();
            let line = Line { name: unit.to_owned(), points };
            append(
                page,
                format_args!(
                    "<figure><figcaption>{unit}</figcaption>\n{}</figure>\n",
                    plot::plot_by_users(line, unit)?,
                ),
            );
        }
        Ok(())
    }

    fn write_runs(&self, page: &mut String) {
        *page += "<h2>Measurements</h2>\n<p>Medians of the rounds; report.json has each round. CPU \
                  is the server's CPU time per call. Core and load are the shares of the time in \
                  which the server's core and the cores of the load generator were busy.</p>\n\
                  <table><tr><th>scenario<th>calls<th class=n>users<th>load mode\
                  <th class=n>calls/s<th class=n>p50 µs<th class=n>p99 µs<th class=n>p99.9 µs\
                  <th class=n>CPU µs<th class=n>core %<th class=n>load %\n";
        for runs in self.runs_by_measurement() {
            let first_run = runs[0];
            let users = first_run.users.map(|users| users.to_string()).unwrap_or_default();
            append(
                page,
                format_args!(
                    "<tr><td>{}<td>{}<td class=n>{users}<td>{}",
                    first_run.scenario,
                    escape_html(first_run.name),
                    mode_of(&runs),
                ),
            );
            let median = |read_value: ReadValue| median_of(&runs, read_value);
            for (number, digits) in [
                (median(|run| run.per_second), 0),
                (median(|run| run.p50), 0),
                (median(|run| run.p99), 0),
                (median(|run| run.p999), 0),
                (median(|run| run.cpu_micros), 2),
                (median(|run| run.server_core_busy * 100.0), 0),
                (median(|run| run.load_cores_busy * 100.0), 0),
            ] {
                append(page, format_args!("<td class=n>{number:.digits$}"));
            }
            page.push('\n');
        }
        *page += "</table>\n";
    }

    fn write_machine(&self, page: &mut String) {
        let machine = &self.machine;
        *page += "<h2>Machine and data</h2>\n<table>\n";
        let cores = format!(
            "server {}, load {:?}, Postgres and Redis {:?}",
            machine.cores.server, machine.cores.load, machine.cores.stores
        );
        for (name, value) in [
            ("measured at", &machine.measured_at),
            ("commit", &machine.commit),
            ("processor", &machine.processor),
            ("memory", &machine.memory),
            ("kernel", &machine.kernel),
            ("cores", &cores),
            ("compiler", &machine.rustc),
            ("Postgres", &machine.postgres),
            ("Redis", &machine.redis),
            ("settings", &machine.settings.join(" ")),
        ] {
            append(page, format_args!("<tr><td>{name}<td>{}\n", escape_html(value)));
        }
        for database in &self.databases {
            append(page, format_args!("<tr><td>data<td>{}\n", escape_html(&database.to_string())));
        }
        *page += "</table>\n";
    }
}

/// The line of an open loop: the median latency at each quantile.
fn distribution_line(runs: &[&Run]) -> Line {
    let quantiles = runs[0].distribution.iter().map(|(quantile, _)| *quantile).enumerate();
    let points = quantiles.map(|(index, x)| {
        let y = median_of(runs, |run| run.distribution[index].1);
        Point { x, y, spread: None }
    });
    let users = runs[0].users.map(|users| format!(", {users} users")).unwrap_or_default();
    Line { name: format!("{}{users}, {}", runs[0].name, mode_of(runs)), points: points.collect() }
}

/// The point of one database; `None` for a server without a database.
fn point_by_users(runs: &[&Run], read_value: ReadValue) -> Option<Point> {
    let values = || runs.iter().map(|run| read_value(run));
    let spread = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    Some(Point {
        x: crate::to_f64(runs[0].users?),
        y: median_of(runs, read_value),
        spread: Some(spread),
    })
}

fn append(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = page.write_fmt(arguments);
}

/// Escapes text for HTML.
fn escape_html(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape_html("a < b && <script>"), "a &lt; b &amp;&amp; &lt;script>");
    }
}
