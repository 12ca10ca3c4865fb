//! HTML report: tables and plots in one file. The page loads no other file and runs no script.

use std::fmt::Write;

use super::{
    Figure, Report, Run,
    plot::{self, Line, Point},
    table::{median_of, pace_of},
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

/// Selects one number of a measurement.
type Value = fn(&Run) -> f64;

impl Report {
    /// The whole page.
    ///
    /// # Errors
    /// Returns an error when a plot cannot be drawn.
    pub(super) fn page(&self) -> anyhow::Result<String> {
        let mut page = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
        page += "<title>Tenantry: what decisions cost</title>";
        add(&mut page, format_args!("<style>{STYLE}</style>\n<h1>What decisions cost</h1>\n"));
        page += "<p>Ratios of what was measured in turn, in the same rounds, on one machine: \
                 docs/performance.md says how.</p>\n";
        if let Some(warning) = self.disturbed() {
            add(&mut page, format_args!("<p class=missed>{}</p>\n", text(&warning)));
        }
        self.write_figures(&mut page);
        self.write_distributions(&mut page)?;
        self.write_sizes(&mut page)?;
        self.write_runs(&mut page);
        self.write_machine(&mut page);
        page += "</html>\n";
        Ok(page)
    }

    fn write_figures(&self, page: &mut String) {
        *page += "<h2>Figures</h2>\n<table><tr><th>scenario<th>figure<th class=n>target\
                  <th class=n>median<th class=n>least<th class=n>greatest<th>\n";
        for figure in &self.figures {
            let Figure { scenario, name, median, min, max, .. } = figure;
            let target = figure.target.map(|target| target.to_string()).unwrap_or_default();
            let met = match figure.met {
                Some(true) => "<span class=met>met</span>",
                Some(false) => "<span class=missed>missed</span>",
                None => "",
            };
            let note =
                figure.note.as_deref().map(|note| format!("<br><small>{}</small>", text(note)));
            add(
                page,
                format_args!(
                    "<tr><td>{scenario}<td>{}{}<td class=n>{target}<td class=n>{median:.3}\
                 <td class=n>{min:.3}<td class=n>{max:.3}<td>{met}\n",
                    text(name),
                    note.unwrap_or_default(),
                ),
            );
        }
        *page += "</table>\n";
    }

    /// Latency distributions of the open loops, one plot per scenario.
    fn write_distributions(&self, page: &mut String) -> anyhow::Result<()> {
        let groups = self.grouped();
        let mut open: Vec<_> = groups.iter().filter(|runs| runs[0].is_open()).collect();
        if open.is_empty() {
            return Ok(());
        }
        *page +=
            "<h2>Latency</h2>\n<p>Times from when a call was due, medians of the rounds.</p>\n";
        open.sort_by_key(|runs| runs[0].scenario);
        for scenario_groups in open.chunk_by(|a, b| a[0].scenario == b[0].scenario) {
            let lines: Vec<_> = scenario_groups.iter().map(|runs| distribution(runs)).collect();
            add(
                page,
                format_args!(
                    "<figure><figcaption>{}</figcaption>\n{}</figure>\n",
                    scenario_groups[0][0].scenario,
                    plot::distribution(&lines)?,
                ),
            );
        }
        Ok(())
    }

    /// Cost of a Check by the number of users in the database.
    fn write_sizes(&self, page: &mut String) -> anyhow::Result<()> {
        let groups = self.grouped();
        let sizes: Vec<_> = groups.iter().filter(|runs| runs[0].scenario == "size").collect();
        if sizes.is_empty() {
            return Ok(());
        }
        *page +=
            "<h2>Cost by size</h2>\n<p>Medians; a vertical line is the spread of the rounds.</p>\n";
        let plots: [(&str, bool, Value); 3] = [
            ("calls/s", false, |run| run.per_second),
            ("p50, microseconds", true, |run| run.p50),
            ("p99, microseconds", true, |run| run.p99),
        ];
        for (unit, open, value) in plots {
            let runs_of_plot =
                sizes.iter().filter(|runs| runs[0].name == "Check" && runs[0].is_open() == open);
            let points = runs_of_plot.filter_map(|runs| by_users(runs, value)).collect();
            let line = Line { name: unit.to_owned(), points };
            add(
                page,
                format_args!(
                    "<figure><figcaption>{unit}</figcaption>\n{}</figure>\n",
                    plot::by_users(line, unit)?,
                ),
            );
        }
        Ok(())
    }

    fn write_runs(&self, page: &mut String) {
        *page += "<h2>Measurements</h2>\n<p>Medians of the rounds; report.json has each. CPU is the \
                  server's for each answer; core and load are how busy its core and the load's \
                  were.</p>\n<table><tr><th>scenario<th>calls<th class=n>users<th>pace\
                  <th class=n>calls/s<th class=n>p50 µs<th class=n>p99 µs<th class=n>p99.9 µs\
                  <th class=n>CPU µs<th class=n>core %<th class=n>load %\n";
        for runs in self.grouped() {
            let first = runs[0];
            let users = first.users.map(|users| users.to_string()).unwrap_or_default();
            add(
                page,
                format_args!(
                    "<tr><td>{}<td>{}<td class=n>{users}<td>{}",
                    first.scenario,
                    text(first.name),
                    pace_of(&runs),
                ),
            );
            let median = |value: Value| median_of(&runs, value);
            for (number, digits) in [
                (median(|run| run.per_second), 0),
                (median(|run| run.p50), 0),
                (median(|run| run.p99), 0),
                (median(|run| run.p999), 0),
                (median(|run| run.cpu_micros), 2),
                (median(|run| run.server_core * 100.0), 0),
                (median(|run| run.load_cores * 100.0), 0),
            ] {
                add(page, format_args!("<td class=n>{number:.digits$}"));
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
            ("at", &machine.at),
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
            add(page, format_args!("<tr><td>{name}<td>{}\n", text(value)));
        }
        for loaded in &self.data {
            add(page, format_args!("<tr><td>data<td>{}\n", text(&loaded.to_string())));
        }
        *page += "</table>\n";
    }
}

/// Medians of an open loop's latencies.
fn distribution(runs: &[&Run]) -> Line {
    let shares = runs[0].distribution.iter().map(|(share, _)| *share).enumerate();
    let points = shares.map(|(index, x)| {
        let y = median_of(runs, |run| run.distribution[index].1);
        Point { x, y, spread: None }
    });
    let users = runs[0].users.map(|users| format!(", {users} users")).unwrap_or_default();
    Line { name: format!("{}{users}, {}", runs[0].name, pace_of(runs)), points: points.collect() }
}

fn by_users(runs: &[&Run], value: Value) -> Option<Point> {
    let values = || runs.iter().map(|run| value(run));
    let spread = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    Some(Point {
        x: crate::number(runs[0].users?),
        y: median_of(runs, value),
        spread: Some(spread),
    })
}

fn add(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = page.write_fmt(arguments);
}

/// Escapes text for HTML.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(text("a < b && <script>"), "a &lt; b &amp;&amp; &lt;script>");
    }
}
