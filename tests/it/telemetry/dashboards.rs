//! Dashboards and alerts query only metrics that exist.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use crate::{
    harness::{TestApp, wait_until},
    tls::{Authority, Files},
};

/// The page that describes each metric.
const DOCS: &str = "docs/telemetry.md";

/// Label names, which look like metric names.
const LABELS: &[&str] = &[
    "db_client_connection_state",
    "db_operation_name",
    "db_system_name",
    "rpc_method",
    "rpc_response_status_code",
    "rpc_system_name",
];

/// Names of the metrics that a file mentions, without the suffixes of samples.
fn metric_names(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect("a file");
    let name_pattern = Regex::new(r"\b(?:tenantry|rpc|db|process)_[a-z_]+\b").expect("a pattern");
    let suffix_pattern = Regex::new("_(?:bucket|sum|count|total)$").expect("a pattern");
    let names = name_pattern.find_iter(&text).map(|found| found.as_str());
    let metrics = names.filter(|name| !LABELS.contains(name));
    metrics.map(|name| suffix_pattern.replace(name, "").into_owned()).collect()
}

#[tokio::test]
async fn every_metric_in_dashboards_alerts_and_docs_exists() {
    let files = Files::create(&Authority::new());
    let app = TestApp::with_settings(|values| {
        files.set(values);
        values.set("MAIL_URL", "smtp://localhost:1");
    })
    .await;
    // The background worker reads these numbers at its first pass.
    wait_until(10, || async { app.get("/metrics").await.1.contains("tenantry_table_rows{") }).await;
    let (_, page) = app.get("/metrics").await;
    let existing_metrics: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(|name| name.trim_end_matches("_count").to_owned())
        .collect();
    for file in ["deploy/grafana/tenantry.json", "deploy/prometheus/alerts.yml", DOCS] {
        let names = metric_names(file);
        assert!(names.len() >= 8, "{file}: {names:?}");
        let missing: Vec<_> = names.difference(&existing_metrics).collect();
        assert!(
            missing.is_empty(),
            "{file} mentions {missing:?}; existing metrics are {existing_metrics:?}"
        );
    }
    let names = metric_names(DOCS);
    let undocumented: Vec<_> = existing_metrics.difference(&names).collect();
    assert!(undocumented.is_empty(), "{DOCS} does not describe {undocumented:?}");
}

/// Each alert has the fields that an operator on call needs.
#[test]
fn every_alert_has_a_severity_and_a_description() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
    let text = fs::read_to_string(path).expect("a file");
    let count = |word: &str| text.lines().filter(|line| line.trim().starts_with(word)).count();
    let alerts = count("- alert:");
    assert!(alerts >= 8, "{alerts}");
    for word in ["expr:", "for:", "severity:", "summary:", "description:"] {
        assert_eq!(count(word), alerts, "{word}");
    }
}
