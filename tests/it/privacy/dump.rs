//! The files of Postgres and Redis contain no readable personal data.

use std::{fs, path::PathBuf};

use memchr::memmem;
use tenantry::proto::v1::{
    ChangePasswordRequest, CreateUserRequest, ListEventsRequest, ListSessionsRequest, LoginRequest,
    LookupUserRequest, RefreshRequest, RegisterRequest, UpdateUserRequest,
};
use tonic::Code;

use crate::harness::{Client, Cluster, TestApp, assert_refused, mask, redis};

// No other test uses these texts, so a file that contains one of them has it from this test.

const EMAIL: &str = "Zebedee.Quux@canary-7f3a.test";
const OTHER_EMAIL: &str = "yolanda.quux@canary-7f3a.test";
const NAME: &str = "Zebedee Quux-Canary";
const DEVICE: &str = "Zebedee's canary phone";
const AGENT: &str = "canary-agent/7.3";
const ADDRESS: &str = "2001:db8:7e57:ca4a::77";
const PASSWORD: &str = "quux canary battery 7f3a";
const NEW_PASSWORD: &str = "quux canary battery 9c1e";

/// Uses the service as a user does. Returns the texts that no file may contain.
async fn use_service(app: &TestApp) -> Vec<String> {
    let visitor = app
        .anonymous()
        .with_metadata("x-forwarded-for", ADDRESS)
        .with_metadata("user-agent", AGENT);
    let request = RegisterRequest {
        email: EMAIL.into(),
        password: PASSWORD.into(),
        display_name: NAME.into(),
        organization_name: "Canaries".into(),
        organization_slug: "canaries".into(),
        request_id: "once".into(),
    };
    let registered = visitor.auth().register(request.clone()).await.expect("registered");
    let repeated = visitor.auth().register(request).await.expect("registered");
    assert_eq!(registered.into_inner().user, repeated.into_inner().user, "the first response");
    let login = LoginRequest {
        email: EMAIL.to_uppercase(),
        password: PASSWORD.into(),
        organization_slug: "canaries".into(),
        device_name: DEVICE.into(),
    };
    let wrong_login = LoginRequest { password: NEW_PASSWORD.into(), ..login.clone() };
    let result = visitor.auth().login(wrong_login).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let tokens = visitor.auth().login(login).await.expect("signed in").into_inner();
    let user = visitor.with_token(&tokens.access_token);
    assert_read_back(&user).await;

    let request = CreateUserRequest {
        email: OTHER_EMAIL.into(),
        display_name: NAME.into(),
        request_id: "once".into(),
        ..CreateUserRequest::default()
    };
    let other = user.users().create_user(request.clone()).await.expect("created").into_inner();
    user.users().create_user(request).await.expect("the first response");
    let request_with_used_email =
        CreateUserRequest { email: EMAIL.into(), ..CreateUserRequest::default() };
    assert_refused(
        user.users().create_user(request_with_used_email).await,
        Code::AlreadyExists,
        "EMAIL_TAKEN",
    );
    let rename_request = UpdateUserRequest {
        user_id: other.user.expect("a user").id,
        display_name: Some(format!("{NAME} the Second")),
        update_mask: mask(&["display_name"]),
        ..UpdateUserRequest::default()
    };
    user.users().update_user(rename_request).await.expect("renamed");
    let account = user.create_service_account("worker", &[]).await;
    let secret = user.create_api_key(&account).await.secret;
    visitor.exchange(&secret).await;
    // The first 22 characters encode the id of the tenant (16 bytes), which is not secret.
    let random_part = secret.trim_start_matches("tenantry_")[22..].to_owned();
    let change = ChangePasswordRequest {
        current_password: PASSWORD.into(),
        new_password: NEW_PASSWORD.into(),
    };
    user.auth().change_password(change).await.expect("changed");
    let refresh =
        RefreshRequest { refresh_token: tokens.refresh_token.clone(), request_id: String::new() };
    let refreshed_tokens =
        visitor.auth().refresh(refresh.clone()).await.expect("refreshed").into_inner();
    assert_refused(visitor.auth().refresh(refresh).await, Code::Unauthenticated, "TOKEN_INVALID");

    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    let tokens = [&tokens.access_token, &tokens.refresh_token, &refreshed_tokens.access_token];
    let mut canaries: Vec<_> = tokens.map(|token| signature(token)).to_vec();
    canaries.extend([EMAIL, OTHER_EMAIL, NAME, DEVICE, AGENT, ADDRESS].map(str::to_owned));
    canaries.extend([secret, random_part]);
    canaries.extend([EMAIL.to_lowercase(), PASSWORD.into(), NEW_PASSWORD.into()]);
    canaries
}

/// Asserts that the service returns the written values to the user.
async fn assert_read_back(user: &Client) {
    let lookup = LookupUserRequest { email: EMAIL.to_lowercase() };
    let reply = user.users().lookup_user(lookup).await.expect("found").into_inner();
    let found_user = reply.user.expect("a user");
    assert_eq!((found_user.email.as_str(), found_user.display_name.as_str()), (EMAIL, NAME));
    let sessions = user.sessions().list_sessions(ListSessionsRequest::default()).await;
    let session = sessions.expect("sessions").into_inner().sessions.remove(0);
    assert_eq!((session.device_name.as_str(), session.ip.as_str()), (DEVICE, ADDRESS));
    assert!(session.user_agent.contains(AGENT), "{}", session.user_agent);
    let events = user.audit().list_events(ListEventsRequest::default()).await;
    let events = events.expect("events").into_inner().events;
    assert!(events.len() >= 4);
    assert!(events.iter().all(|event| event.ip == ADDRESS), "{events:?}");
}

/// All files of Postgres with data of this database: its tables and indexes, the write-ahead
/// log since the position `wal_start`, and the server log.
async fn postgres_files(app: &TestApp, wal_start: &str) -> Vec<PathBuf> {
    let mut owner_connection = Cluster::get().connect_owner(&app.database).await;
    sqlx::raw_sql("checkpoint")
        .execute(&mut owner_connection)
        .await
        .expect("all pages are on disk");
    let (dir, base, from, to): (String, String, String, String) = sqlx::query_as(
        "select current_setting('data_directory'),
                'base/' || (select oid from pg_database where datname = current_database()),
                pg_walfile_name($1::pg_lsn), pg_walfile_name(pg_current_wal_lsn())",
    )
    .bind(wal_start)
    .fetch_one(&mut owner_connection)
    .await
    .expect("paths");
    let dir = PathBuf::from(dir);
    let list_dir =
        |dir: PathBuf| fs::read_dir(dir).expect("files").map(|file| file.expect("a file"));
    let wal = list_dir(dir.join("pg_wal")).filter(|file| {
        let name = file.file_name().into_string().expect("a name");
        (from.as_str()..=to.as_str()).contains(&name.as_str())
    });
    let mut files: Vec<_> = list_dir(dir.join(base)).chain(wal).map(|file| file.path()).collect();
    files.push(Cluster::get().postgres_log());
    files
}

/// The current position in the write-ahead log.
async fn wal_position(app: &TestApp) -> String {
    let mut owner_connection = Cluster::get().connect_owner(&app.database).await;
    let query = "select pg_current_wal_lsn()::text";
    sqlx::query_scalar(query).fetch_one(&mut owner_connection).await.expect("a position")
}

fn contains(content: &[u8], canary: &str) -> bool {
    memmem::find(content, canary.as_bytes()).is_some()
}

/// K06: personal data is not found in tables, indexes, the write-ahead log, Postgres's own log
/// or Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disks_contain_no_readable_personal_data() {
    let app = TestApp::with_settings(|values| values.set("TRUSTED_PROXIES", "127.0.0.1")).await;
    let wal_start = wal_position(&app).await;
    let mut canaries = use_service(&app).await;
    app.wait_until_audit_settled().await;
    // A slug is not secret. The search must find the slug; otherwise the search does not work.
    canaries.push("canaries".into());

    let mut matches = Vec::new();
    for path in postgres_files(&app, &wal_start).await {
        let content = fs::read(&path).unwrap_or_default();
        let file = path.display();
        matches.extend(
            canaries
                .iter()
                .filter(|canary| contains(&content, canary))
                .map(|c| format!("{c} in {file}")),
        );
    }
    // The slug is at least in a table and in the write-ahead log.
    assert!(matches.len() >= 2, "the search does not find the slug");
    matches.retain(|line| !line.starts_with("canaries "));
    assert!(matches.is_empty(), "{matches:#?}");

    let redis_file = save_redis().await;
    // The audit events in Redis contain slugs of tenants.
    for canary in canaries.iter().filter(|canary| *canary != "canaries") {
        assert!(!contains(&redis_file, canary), "{canary} in Redis");
    }
}

/// Makes Redis write all keys and values to its file. Returns the content of the file.
async fn save_redis() -> Vec<u8> {
    redis("config set rdbcompression no").await;
    redis("save").await;
    let dir = redis("config get dir").await;
    let dir = dir.lines().find(|line| line.starts_with('/')).expect("a folder").to_owned();
    fs::read(PathBuf::from(dir).join("dump.rdb")).expect("the file of Redis")
}
