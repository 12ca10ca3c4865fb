//! Lifetimes of sessions and refresh tokens, and the absence of tokens in the database and log.

use std::process::Stdio;

use jsonwebtoken::Header;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::{
    config::SETTINGS,
    proto::v1::{ListSessionsRequest, LogoutRequest},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Endpoint;

use super::refresh::{assert_refresh_refused, assert_signed_out, refresh};
use crate::harness::{Client, Forge, TestApp, within_seconds};

fn numeric_claim(token: &str, claim: &str) -> i64 {
    Forge::read(token).1[claim].as_i64().expect(claim)
}

/// C14: the expiry of a session stays the same when its tokens are refreshed.
#[tokio::test]
async fn refreshing_does_not_prolong_a_session() {
    let app = TestApp::with_settings(|values| values.set("SESSION_EXPIRES_IN", "1h")).await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let expiry = numeric_claim(&acme.tokens.refresh_token, "exp");
    let mut tokens = refresh(&acme, &acme.tokens.refresh_token).await;
    assert_eq!(numeric_claim(&tokens.refresh_token, "exp"), expiry);

    // The session now expires in ten minutes. A new access token would be valid for longer, so it
    // gets the expiry of the session.
    let set_expiry = "update sessions set expires_at = date_trunc('second', now()) + '10 min'
                 returning extract(epoch from expires_at)::bigint";
    let expiry: i64 = sqlx::query_scalar(set_expiry)
        .fetch_one(&mut owner_connection)
        .await
        .expect("the expiry is set");
    tokens = refresh(&acme, &tokens.refresh_token).await;
    assert_eq!(numeric_claim(&tokens.refresh_token, "exp"), expiry);
    assert_eq!(numeric_claim(&tokens.access_token, "exp"), expiry);

    let expire_session = "update sessions set expires_at = now() - interval '1 second'";
    sqlx::query(expire_session).execute(&mut owner_connection).await.expect("expired");
    assert_refresh_refused(&acme, &tokens.refresh_token).await;
    // The access token's `exp` is still in the future, but its session has expired. A second
    // server has no cache entry for the token, so that server must look up the session.
    let second_server = TestApp::on_database(&app.database, |_| {}).await;
    let caller = acme.with_token(&tokens.access_token).on_server(&second_server.channel);
    let list_reply = caller.sessions().list_sessions(ListSessionsRequest::default()).await;
    assert_eq!(
        list_reply.expect_err("the session has expired").code(),
        tonic::Code::Unauthenticated
    );
}

/// C15: a refresh token expires after `JWT_REFRESH_EXPIRES_IN`.
#[tokio::test]
async fn an_unused_refresh_token_expires() {
    let app = TestApp::with_settings(|values| values.set("JWT_REFRESH_EXPIRES_IN", "2h")).await;
    let acme = app.create_tenant("acme").await;
    let token = &acme.tokens.refresh_token;
    assert_eq!(numeric_claim(token, "exp") - numeric_claim(token, "iat"), 2 * 60 * 60);

    let (header, mut claims): (Header, Value) = Forge::read(token);
    let sign_with_earlier_times = |claims: &mut Value, seconds: i64| {
        for claim in ["iat", "nbf", "exp"] {
            claims[claim] = (claims[claim].as_i64().expect(claim) - seconds).into();
        }
        jsonwebtoken::encode(&header, &*claims, &app.forge().refresh).expect("a token")
    };
    // The leeway for wrong clocks is 30 seconds.
    let expired_token = sign_with_earlier_times(&mut claims, 2 * 60 * 60 + 31);
    assert_refresh_refused(&acme, &expired_token).await;
    // The expired token did not count as reused, so the session continues.
    let new_tokens = refresh(&acme, token).await;
    refresh(&acme, &new_tokens.refresh_token).await;
}

/// A server process, and the part of its log that was read so far.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    log: String,
}

impl Program {
    fn serve(database: &str) -> Self {
        let values = TestApp::values(database);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        for setting in SETTINGS {
            command.envs(values.get(setting.name).map(|value| (setting.name, value)));
        }
        command.env("GRPC_ADDR", "127.0.0.1:0");
        command.env("LOG_LEVEL", "debug,tenantry=trace,sqlx=trace,fred=trace");
        let mut child = command
            .arg("serve")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        Self { child, lines, log: String::new() }
    }

    /// Reads the log up to a line that contains `text`, and returns that line.
    async fn read_until_logged(&mut self, text: &str) -> String {
        loop {
            let line = within_seconds(20, self.lines.next_line())
                .await
                .expect("text")
                .expect("another line");
            self.log.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    async fn connect(&mut self) -> Client {
        let line = self.read_until_logged("address=").await;
        let (_, addr) = line.rsplit_once("address=").expect("an address");
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an endpoint");
        Client::anonymous(endpoint.connect().await.expect("the server listens"))
    }

    /// Stops the process and returns its whole log.
    async fn stop(mut self) -> String {
        self.child.start_kill().expect("killed");
        while let Ok(Some(line)) = self.lines.next_line().await {
            self.log.push_str(&line);
        }
        self.log
    }
}

/// C19: no table and no log line contains a token or its signature.
#[tokio::test]
async fn neither_the_database_nor_the_log_contains_a_token() {
    let app = TestApp::spawn().await;
    let mut program = Program::serve(&app.database);
    let anonymous = program.connect().await;
    let acme = anonymous.sign_up_tenant("acme").await;
    let new_tokens = refresh(&acme, &acme.tokens.refresh_token).await;
    assert_refresh_refused(&acme, &acme.tokens.refresh_token).await;
    assert_signed_out(&acme, &new_tokens.access_token).await;
    let other_session = anonymous.login("acme", &acme.email, crate::harness::PASSWORD).await;
    other_session.auth().logout(LogoutRequest::default()).await.expect("signed out");

    program.read_until_logged("/tenantry.v1.AuthService/Logout").await;
    let mut log_and_rows = program.stop().await;
    let mut owner_connection = app.owner_connection().await;
    let tables = "select relname::text from pg_class
                  where relnamespace = 'public'::regnamespace and relkind = 'r'";
    let tables: Vec<String> =
        sqlx::query_scalar(tables).fetch_all(&mut owner_connection).await.expect("tables");
    for table in tables {
        let rows = AssertSqlSafe(format!("select t::text from {table} t"));
        let rows: Vec<String> =
            sqlx::query_scalar(rows).fetch_all(&mut owner_connection).await.expect("rows");
        log_and_rows.push_str(&rows.join("\n"));
    }
    for token in [
        &acme.tokens.access_token,
        &acme.tokens.refresh_token,
        &new_tokens.access_token,
        &new_tokens.refresh_token,
        &other_session.tokens.access_token,
    ] {
        let (_, signature) = token.rsplit_once('.').expect("a JWT");
        assert!(!log_and_rows.contains(token.as_str()) && !log_and_rows.contains(signature));
    }
    assert!(!log_and_rows.contains(crate::harness::PASSWORD));
}
