//! A log that no process reads.

use std::process::Stdio;

use tenantry::{config::SETTINGS, proto::v1::WhoAmIRequest};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tonic::Code;

use crate::harness::{Client, Cluster, TestApp, assert_refused, within_seconds};

/// Value of a counter on the `/metrics` page.
async fn counter_value(http_address: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(http_address).await.expect("HTTP is served");
    let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("read");
    let value = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    value.trim().parse().expect("a number")
}

/// N24: calls continue when standard error is a full pipe.
#[tokio::test]
async fn calls_continue_while_no_process_reads_the_log() {
    let database = Cluster::get().new_database().await;
    let values = TestApp::values(&database);
    let settings =
        SETTINGS.iter().filter_map(|setting| Some((setting.name, values.get(setting.name)?)));
    // A free port for the server: the listener closes again.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let http_address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .arg("serve")
        .env_clear()
        .envs(settings)
        // With these settings each call writes many log lines.
        .envs([
            ("LOG_FORMAT", "json"),
            ("LOG_LEVEL", "debug"),
            ("HTTP_ADDR", http_address.as_str()),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut process = command.spawn().expect("the process starts");
    let mut log = BufReader::new(process.stderr.take().expect("a pipe")).lines();
    let address = within_seconds(60, async {
        loop {
            let line = log.next_line().await.expect("a readable log").expect("a line of the log");
            let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if event["message"] == "serving" {
                break event["address"].as_str().expect("an address").to_owned();
            }
        }
    })
    .await;

    // From here on the test does not read the pipe. The pipe stays open.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let client = Client::anonymous(channel.expect("a URL").connect_lazy());
    let dropped_lines = "tenantry_log_lines_dropped_total";
    within_seconds(60, async {
        while counter_value(&http_address, dropped_lines).await == 0 {
            for _ in 0..50 {
                let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
                assert_refused(reply, Code::Unauthenticated, "TOKEN_MISSING");
            }
        }
    })
    .await;

    // The server must also be able to stop.
    let pid = process.id().expect("the process runs").to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs");
    let exit_status = within_seconds(30, process.wait()).await.expect("a status");
    assert!(exit_status.success(), "{exit_status}");
    drop(log);
}
