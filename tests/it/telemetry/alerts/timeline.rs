//! Turns metrics of a real server into an hour of samples, and asks promtool which alerts fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Instant,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::TestApp;

/// Minutes before the outage.
const QUIET_MINUTES: u32 = 20;
/// Minutes of the outage.
const OUTAGE_MINUTES: u32 = 40;

/// The metrics of a server at one moment.
pub struct Scrape {
    time: Instant,
    /// The value of each series, by its name and labels.
    values: BTreeMap<String, f64>,
    /// Names of the gauges. All other series only grow.
    gauges: BTreeSet<String>,
}

impl Scrape {
    pub async fn take(app: &TestApp) -> Self {
        let (_, page) = app.get("/metrics").await;
        let values = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.parse().expect(value)))
            .collect();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let gauges =
            types.filter_map(|line| line.strip_suffix(" gauge")).map(str::to_owned).collect();
        Self { time: Instant::now(), values, gauges }
    }

    /// Whether no call to a store failed between this scrape and a later one.
    pub fn has_no_store_errors(&self, later: &Self) -> bool {
        later.values.iter().all(|(series, value)| {
            !series.starts_with("db_client_operation_duration_seconds_count{")
                || series.contains("error_type=\"\"")
                || !series.contains("error_type=")
                || self.values.get(series) == Some(value)
        })
    }

    /// The value of a series and its change in a minute.
    fn trend(&self, later: &Self, series: &str) -> (f64, f64) {
        let value = later.values.get(series).copied().unwrap_or_default();
        let name = series.split('{').next().unwrap_or(series);
        if self.gauges.contains(name) {
            // The server measures an age every few seconds. An age of more than a second grows as
            // long as its cause lasts.
            let is_age = ["_oldest_seconds", "_lag_seconds"].iter().any(|end| name.ends_with(end));
            return (value, if is_age && value > 1.0 { 60.0 } else { 0.0 });
        }
        let before = self.values.get(series).copied().unwrap_or_default();
        let seconds = (later.time - self.time).as_secs_f64();
        let is_counter =
            ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
        (value, if is_counter { (value - before) / seconds * 60.0 } else { 0.0 })
    }
}

/// Two scrapes before an outage, and two in it. `None` when nothing can be scraped in the outage.
pub struct Timeline {
    pub quiet: [Scrape; 2],
    pub outage: Option<[Scrape; 2]>,
}

impl Timeline {
    /// The samples of all series, one for each minute, in the notation of promtool.
    fn input_series(&self) -> Vec<Value> {
        let [first, second] = &self.quiet;
        let names = self.outage.as_ref().map_or(&second.values, |[_, last]| &last.values).keys();
        let input = names.map(|series| {
            let (start, quiet_growth) = first.trend(second, series);
            let mut samples = vec![expanding(start, quiet_growth, QUIET_MINUTES)];
            if let Some([first, second]) = &self.outage {
                let (value, growth) = first.trend(second, series);
                let end_of_quiet = start + quiet_growth * f64::from(QUIET_MINUTES);
                // Counters continue at their last value before the outage.
                let start = if growth > 0.0 { value.max(end_of_quiet) } else { value };
                samples.push(expanding(start, growth, OUTAGE_MINUTES));
            } else {
                samples.push(format!("_x{OUTAGE_MINUTES}"));
            }
            json!({ "series": with_instance(series), "values": samples.join(" ") })
        });
        input.collect()
    }

    /// Asserts that no alert fires before the outage, and that these alerts fire in it.
    pub async fn assert_alerts(&self, alerts: &[&str]) {
        let firing = |minute: u32, expression: String, samples: Value| json!({ "expr": expression, "eval_time": format!("{minute}m"), "exp_samples": samples });
        let all_firing_alerts = "count by (alertname) (ALERTS{alertstate=\"firing\"})".to_owned();
        let mut expectations = vec![firing(QUIET_MINUTES, all_firing_alerts, json!([]))];
        for alert in alerts {
            let expression = format!(
                "count by (alertname) (ALERTS{{alertstate=\"firing\", alertname=\"{alert}\"}}) > bool 0"
            );
            let sample = json!([{ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }]);
            expectations.push(firing(QUIET_MINUTES + OUTAGE_MINUTES, expression, sample));
        }
        evaluate("1m", self.input_series(), expectations).await;
    }
}

/// Evaluates the rules with samples at this interval, and asserts the results of expressions.
pub async fn evaluate(interval: &str, series: Vec<Value>, expectations: Vec<Value>) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
    let test = json!({
        "rule_files": [rules],
        "evaluation_interval": interval,
        "tests": [{
            "interval": interval,
            "input_series": series,
            "promql_expr_test": expectations,
        }],
    });
    let dir = TempDir::new().expect("a folder");
    // JSON is YAML.
    let file = dir.path().join("test.yml");
    fs::write(&file, test.to_string()).expect("written");
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .await
        .expect("promtool");
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
}

/// A value and its growth in each of the following minutes.
fn expanding(start: f64, growth: f64, minutes: u32) -> String {
    format!("{start}+{growth}x{}", minutes - 1)
}

/// Adds the label `instance` to a series, as Prometheus does.
fn with_instance(series: &str) -> String {
    let instance = "instance=\"replica\"";
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{instance},{labels}"),
        None => format!("{series}{{{instance}}}"),
    }
}
