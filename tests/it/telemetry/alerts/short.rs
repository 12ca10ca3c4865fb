//! Alerts of faults that a real server does not show within a test, evaluated with made-up samples.

use serde_json::{Value, json};

use super::timeline::evaluate;

/// A series with these values, in the notation of promtool.
fn series(name: &str, values: &str) -> Value {
    json!({ "series": name, "values": values })
}

/// The expectation of promtool that exactly these alerts fire at a time, such as `6m`.
fn expectation(time: &str, alerts: &[&str]) -> Value {
    let samples: Vec<_> = alerts
        .iter()
        .map(|alert| json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }))
        .collect();
    json!({
        "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
        "eval_time": time,
        "exp_samples": samples,
    })
}

/// Samples of five minutes without a fault, of an outage of 30 seconds, and of half an hour without
/// a fault. There is a sample each 15 seconds.
fn short_outage() -> Vec<Value> {
    let calls = |code: &str| {
        format!(
            "rpc_server_call_duration_seconds_count{{rpc_method=\"m\", \
             rpc_response_status_code=\"{code}\", instance=\"a\"}}"
        )
    };
    let failed_operations = "db_client_operation_duration_seconds_count{db_system_name=\"postgresql\", \
                  error_type=\"connection\", instance=\"a\"}";
    vec![
        series("tenantry_build_info{instance=\"a\", job=\"t\"}", "1x150"),
        series("tenantry_postgres_up{instance=\"a\", job=\"t\"}", "1x20 0x1 1x126"),
        series(&calls("OK"), "0+150x20 3000x1 3000+150x126"),
        series(&calls("UNAVAILABLE"), "0x20 150+150x1 300x126"),
        series(failed_operations, "0x20 150+150x1 300x126"),
    ]
}

/// N35: no alert fires for an outage of half a minute, neither during the outage nor after it.
#[tokio::test]
async fn no_alert_fires_after_a_short_outage() {
    let times = (20..120).map(|sample| format!("{}s", sample * 15));
    let expectations = times.map(|time| expectation(&time, &[])).collect();
    evaluate("15s", short_outage(), expectations).await;
}

/// N33: single failures to send an audit event cause no alert while no event waits.
#[tokio::test]
async fn no_alert_fires_for_a_single_failure_to_send_an_event() {
    let series = vec![
        series("tenantry_build_info{instance=\"a\", job=\"t\"}", "1x90"),
        series(
            "tenantry_audit_send_failures_total{instance=\"a\", job=\"t\"}",
            // The counter grows by one every nine minutes.
            "0x8 1x8 2x8 3x8 4x8 5x8 6x8",
        ),
        series("tenantry_audit_unsent_oldest_seconds{instance=\"a\", job=\"t\"}", "0x90"),
    ];
    evaluate("1m", series, vec![expectation("30m", &[]), expectation("50m", &[])]).await;
}

/// N42: one replica of two is down, and later replaced by one with another name.
#[tokio::test]
async fn an_alert_fires_while_one_replica_of_two_is_down() {
    let series = vec![
        series("up{instance=\"a\", job=\"t\"}", "1x60"),
        series("up{instance=\"b\", job=\"t\"}", "1x10 0x20 _x30"),
        series("up{instance=\"other\", job=\"another\"}", "0x60"),
        series("tenantry_build_info{instance=\"a\", job=\"t\"}", "1x60"),
        series("tenantry_build_info{instance=\"b\", job=\"t\"}", "1x10 _x50"),
    ];
    let expectations = vec![
        expectation("9m", &[]),
        expectation("20m", &["TenantryReplicaDown"]),
        expectation("50m", &[]),
    ];
    evaluate("1m", series, expectations).await;
}

/// N26: the clock of a replica is wrong, in either direction.
#[tokio::test]
async fn an_alert_fires_while_a_clock_is_wrong() {
    let replica = |name: &str, values: &str| {
        series(&format!("tenantry_clock_offset_seconds{{instance=\"{name}\", job=\"t\"}}"), values)
    };
    let up = series("tenantry_build_info{instance=\"a\", job=\"t\"}", "1x30");
    let series = vec![up, replica("a", "0x30"), replica("b", "0x5 -20x10 0x15")];
    let expectations = vec![
        expectation("4m", &[]),
        expectation("14m", &["TenantryClockWrong"]),
        expectation("25m", &[]),
    ];
    evaluate("1m", series, expectations).await;
}

/// N35: writes hang although Postgres answers.
#[tokio::test]
async fn an_alert_fires_while_writes_hang() {
    let calls = |code: &str| {
        format!(
            "rpc_server_call_duration_seconds_count{{rpc_method=\"Update\", \
             rpc_response_status_code=\"{code}\", instance=\"a\"}}"
        )
    };
    let series = vec![
        series("tenantry_build_info{instance=\"a\", job=\"t\"}", "1x60"),
        series("tenantry_postgres_up{instance=\"a\", job=\"t\"}", "1x60"),
        series(&calls("OK"), "0+6000x60"),
        series(&calls("DEADLINE_EXCEEDED"), "0x10 0+6x50"),
    ];
    evaluate(
        "1m",
        series,
        vec![expectation("9m", &[]), expectation("20m", &["TenantryCallsHang"])],
    )
    .await;
}
