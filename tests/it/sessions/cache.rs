//! A wrong entry in the session cache never makes an ended session live.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tenantry::proto::v1::{
    LoginRequest, LogoutRequest, RevokeAllSessionsRequest, RevokeSessionRequest, WhoAmIRequest,
};
use tonic::Code;
use uuid::Uuid;

use crate::harness::{
    Client, Fault, PASSWORD, PrivateRedis, Proxy, TestApp, assert_refused, redis, wait_until,
};

async fn is_signed_in(client: &Client) -> bool {
    client.auth().who_am_i(WhoAmIRequest {}).await.is_ok()
}

/// Asserts that the server refuses the client's token.
async fn assert_signed_out(client: &Client) {
    let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

fn session_key(client: &Client) -> String {
    format!("session:{{{}}}:{}", client.tenant_id, client.tokens.session_id)
}

fn login_request(client: &Client, device: &str) -> LoginRequest {
    LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        device_name: device.into(),
    }
}

#[tokio::test]
async fn a_new_session_is_cached_with_a_ttl_and_an_ended_session_is_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let is_cached = || async {
        let new_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
        let entry = redis(&format!("GET {}", session_key(&new_client))).await;
        let ttl = redis(&format!("PTTL {}", session_key(&new_client))).await;
        assert!(!ttl.contains("-1"), "the entry does not expire: {ttl}");
        entry.contains(&acme.user_id)
    };
    wait_until(10, is_cached).await;
    acme.auth().logout(LogoutRequest::default()).await.expect("signed out");
    assert_signed_out(&acme).await;
}

/// H05: Redis is only a cache for sessions.
#[tokio::test]
async fn an_emptied_redis_neither_revives_nor_ends_sessions() {
    let redis = PrivateRedis::start().await;
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", redis.url())).await;
    let acme = app.create_tenant("acme").await;
    let signed_out_client = acme.create_member("ada", &[]).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signed out");
    redis.ask("FLUSHALL").await;
    assert_signed_out(&signed_out_client).await;
    assert!(is_signed_in(&acme).await);
    redis.ask("SCRIPT FLUSH").await;
    assert_signed_out(&signed_out_client).await;
    assert!(is_signed_in(&acme).await);
}

/// F16: a cache entry is valid only for the session that it was written for.
#[tokio::test]
async fn an_entry_is_valid_only_for_its_own_user_session_and_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let ada = a.create_member("ada", &[]).await;
    assert!(is_signed_in(&a).await && is_signed_in(&b).await);
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    assert!(is_signed_in(&a).await);
    for other in [&a, &b] {
        redis(&format!("COPY {} {} REPLACE", session_key(other), session_key(&ada))).await;
        assert_signed_out(&ada).await;
    }
}

/// A read of Postgres that began before the session ended writes no cache entry after the session
/// ended.
#[tokio::test]
async fn a_slow_read_does_not_revive_a_session() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let slow_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = victim.on_server(&slow_replica.channel);
    redis(&format!("DEL {}", session_key(&victim))).await;

    let session: Uuid = victim.tokens.session_id.parse().expect("an id");
    proxy.fault_when_sent(session.as_bytes(), Fault::HoldReplies);
    let revoke = async {
        proxy.wait_until_held().await;
        let request = RevokeSessionRequest { session_id: session.to_string() };
        acme.sessions().revoke_session(request).await.expect("revoked");
        proxy.pass();
    };
    // The call began before the session ended, so success and refusal are both correct.
    let (_, ()) = tokio::join!(is_signed_in(&replica_client), revoke);
    // The replica gets the end of the session from the feed within a second.
    wait_until(1, || async { !is_signed_in(&replica_client).await }).await;
    assert_signed_out(&replica_client).await;
    assert_signed_out(&victim).await;
}

/// H05: a new replica has read only new changes from the feed, so it may find a cache entry that is
/// older than the end of the session. The replica must not use such an entry.
#[tokio::test]
async fn a_replica_that_has_just_started_revives_no_session() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let replica_without_redis =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
    let admin = acme.on_server(&replica_without_redis.channel);
    admin.cache_standing_of(&ada.user_id).await;
    proxy.cut();

    for _ in 0..5 {
        let victim = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
        admin.sessions().revoke_session(request).await.expect("revoked");
        let new_replica = TestApp::on_database(&app.database, |_| {}).await;
        // The server asks Redis about a session only if the standing of the subject is cached.
        acme.on_server(&new_replica.channel).cache_standing_of(&ada.user_id).await;
        assert_signed_out(&victim.on_server(&new_replica.channel)).await;
    }
}

/// A sign-in writes its session into the cache only if the session has not ended meanwhile.
#[tokio::test]
async fn a_slow_sign_in_does_not_revive_a_session() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let slow_replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;

    // The statement that creates the session contains the compared password hash.
    proxy.fault_when_sent("$argon2id$", Fault::HoldReplies);
    let anonymous = slow_replica.anonymous();
    let revoke = async {
        proxy.wait_until_held().await;
        let request = RevokeAllSessionsRequest { user_id: ada.user_id.clone() };
        let reply = acme.sessions().revoke_all_sessions(request).await.expect("revoked");
        assert_eq!(reply.into_inner().revoked_count, 2, "the new session ends too");
        proxy.pass();
    };
    let mut auth = anonymous.auth();
    let (reply, ()) = tokio::join!(auth.login(login_request(&ada, "a slow device")), revoke);
    let tokens = reply.expect("the session was opened before it ended").into_inner();
    assert_signed_out(&anonymous.with_token(&tokens.access_token)).await;
}

/// H04: Redis may hang and write a cache entry late. The late entry must not hide a change that was
/// committed in the meantime.
#[tokio::test]
async fn a_cache_entry_expires_relative_to_the_read_of_postgres() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    let (hanging_proxy, cut_proxy) = (Proxy::redis().await, Proxy::redis().await);
    let (hanging_url, cut_url) = (hanging_proxy.redis_url(), cut_proxy.redis_url());
    let hanging_replica =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", hanging_url)).await;
    let replica_without_redis =
        TestApp::on_database(&app.database, |values| values.set("REDIS_URL", cut_url)).await;
    let mut owner_connection = app.owner_connection().await;
    redis(&format!("DEL {}", session_key(&victim))).await;

    // A replica uses the session cache only after it has followed the feed for some time. Wait
    // until it writes entries.
    let is_entry_written = || async {
        let mut probe = acme.on_server(&hanging_replica.channel);
        let reply = probe.auth().login(login_request(&acme, "")).await.expect("signed in");
        probe.tokens = reply.into_inner();
        redis(&format!("DEL {}", session_key(&probe))).await;
        assert!(is_signed_in(&probe.with_token(&probe.tokens.access_token)).await);
        redis(&format!("EXISTS {}", session_key(&probe))).await.contains(":1")
    };
    wait_until(10, is_entry_written).await;
    // The server asks Redis about a session only if the standing of the subject is cached.
    acme.on_server(&hanging_replica.channel).cache_standing_of(&victim.user_id).await;
    // Only the write of an entry contains the user's id.
    hanging_proxy.fault_when_sent(&victim.user_id, Fault::Hold);
    let victim = victim.on_server(&hanging_replica.channel);
    wait_until(10, || is_signed_in(&victim)).await;
    hanging_proxy.wait_until_held().await;
    cut_proxy.cut();
    let admin = acme.on_server(&replica_without_redis.channel);
    let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
    admin.sessions().revoke_session(request).await.expect("revoked");

    // Wait until one second after the revocation.
    let wait_a_second = "select pg_sleep(1 - extract(epoch from clock_timestamp() - revoked_at))
                          from sessions where session_id = $1::uuid";
    sqlx::query(wait_a_second)
        .bind(&victim.tokens.session_id)
        .execute(&mut owner_connection)
        .await
        .expect("a second has passed");
    hanging_proxy.pass();
    assert_signed_out(&victim).await;
    acme.cache_standing_of(&victim.user_id).await;
    assert_signed_out(&victim.on_server(&app.channel)).await;
}

#[tokio::test]
async fn continuous_calls_do_not_keep_an_ended_session_valid() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    for round in 0..10 {
        let victim = acme.create_member(&format!("victim-{round}"), &[]).await;
        let is_finished = AtomicBool::new(false);
        let calls = (0..8).map(|n| {
            let caller =
                victim.on_server(if n % 2 == 0 { &app.channel } else { &second_replica.channel });
            let is_finished = &is_finished;
            async move {
                while !is_finished.load(Ordering::Relaxed) {
                    is_signed_in(&caller).await;
                }
            }
        });
        let revoke = async {
            wait_until(10, || is_signed_in(&victim)).await;
            let request = RevokeAllSessionsRequest { user_id: victim.user_id.clone() };
            acme.sessions().revoke_all_sessions(request).await.expect("revoked");
            assert_signed_out(&victim).await;
            // The other replica gets the end of the session within a second, and the call itself
            // also takes time.
            let replica_client = victim.on_server(&second_replica.channel);
            wait_until(2, || async { !is_signed_in(&replica_client).await }).await;
            for channel in [&app.channel, &second_replica.channel].repeat(10) {
                assert_signed_out(&victim.on_server(channel)).await;
            }
            is_finished.store(true, Ordering::Relaxed);
        };
        tokio::join!(futures::future::join_all(calls), revoke);
    }
}

/// Signs in until the new session is in the cache. Returns its cache entry, the epoch of that
/// entry, and the client.
async fn sign_in_until_cached(app: &TestApp, user: &Client) -> (String, String, Client) {
    let result = tokio::sync::Mutex::new(None);
    let is_cached = || async {
        let client = app.anonymous().login(&user.slug, &user.email, PASSWORD).await;
        let entry = redis_value(&session_key(&client)).await;
        let epoch = redis_value(&epoch_key(&client)).await;
        let is_cached = entry.starts_with(&client.user_id);
        *result.lock().await = Some((entry, epoch, client));
        is_cached
    };
    wait_until(10, is_cached).await;
    result.into_inner().expect("cached")
}

/// Value of a Redis key.
async fn redis_value(key: &str) -> String {
    let reply = redis(&format!("GET {key}")).await;
    reply.lines().nth(1).unwrap_or_default().to_owned()
}

fn epoch_key(client: &Client) -> String {
    format!("session-epoch:{{{}}}", client.tenant_id)
}

/// N23: write access to Redis can neither forge an entry nor restore an old one.
#[tokio::test]
async fn no_cache_entry_revives_an_ended_session() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let victim = acme.create_member("victim", &[]).await;
    let (entry, epoch, victim) = sign_in_until_cached(&app, &victim).await;
    let (other_entry, _, other_client) = sign_in_until_cached(&app, &victim).await;
    let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
    acme.sessions().revoke_session(request).await.expect("revoked");
    // A replica that starts later never reads the end of the session from the feed, so it uses
    // Redis.
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let (acme, victim) =
        (acme.on_server(&second_replica.channel), victim.on_server(&second_replica.channel));
    acme.cache_standing_of(&victim.user_id).await;
    // A new replica uses Redis for sessions only after it has followed the change feed for some
    // seconds.
    let wait = sqlx::query("select pg_sleep(5.2)");
    wait.execute(&mut app.owner_connection().await).await.expect("five seconds have passed");

    let key = session_key(&victim);
    let parts: Vec<_> = entry.split(' ').collect();
    let [user, entry_epoch, looked_up, written, tag] = parts[..] else { panic!("{entry}") };
    let mut invalid_entries = vec![entry.clone(), other_entry];
    for time in ["nan", "inf", "-nan", "1e300", "99999999999999"] {
        invalid_entries.push(format!("{user} {entry_epoch} {time} {written} {tag}"));
        invalid_entries.push(format!("{user} {entry_epoch} {looked_up} {time} {tag}"));
        invalid_entries.push(format!("{user} {entry_epoch} {time} {time} {tag}"));
    }
    let mut commands: Vec<_> =
        invalid_entries.iter().map(|entry| format!("SET {key} \"{entry}\"")).collect();
    commands.push(format!("HSET {key} epoch {epoch} user {user} looked_up nan"));
    for command in commands {
        redis(&format!("DEL {key}")).await;
        redis(&format!("SET {} {epoch}", epoch_key(&victim))).await;
        redis(&command).await;
        // The server asks Redis about a session only if the standing of the subject is cached.
        acme.cache_standing_of(&victim.user_id).await;
        assert_signed_out(&victim).await;
    }
    assert!(is_signed_in(&other_client).await);
}

/// N23: a key with a value of another type is treated as missing.
#[tokio::test]
async fn keys_of_a_wrong_type_neither_end_nor_revive_sessions() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let signed_out_client = acme.create_member("gone", &[]).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signed out");
    for key in [epoch_key(&ada), session_key(&ada), session_key(&signed_out_client)] {
        redis(&format!("DEL {key}")).await;
        redis(&format!("LPUSH {key} x")).await;
        for user in [&ada, &signed_out_client] {
            acme.cache_standing_of(&user.user_id).await;
        }
        assert!(is_signed_in(&ada).await, "{key}");
        assert_signed_out(&signed_out_client).await;
        let new_client = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        assert!(is_signed_in(&new_client).await, "{key}");
        new_client.auth().logout(LogoutRequest::default()).await.expect("signed out");
        assert_signed_out(&new_client).await;
    }
}

/// N23: the server deletes a value that is larger than the values that the server writes, without
/// reading the value.
#[tokio::test]
async fn oversized_values_are_removed() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let signed_out_client = acme.create_member("gone", &[]).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signed out");
    // A replica remembers only for a short time which sessions have ended.
    let wait = sqlx::query("select pg_sleep(5.2)");
    wait.execute(&mut app.owner_connection().await).await.expect("five seconds have passed");
    let (epoch_key, session_key) = (epoch_key(&acme), session_key(&signed_out_client));
    // An epoch has 32 hexadecimal digits, and an entry has at most 256 bytes.
    for command in [
        format!("SETRANGE {epoch_key} 1000000 x"),
        format!("SET {epoch_key} x"),
        format!("SET {epoch_key} {}", "x".repeat(32)),
        format!("SETRANGE {session_key} 1000000 x"),
        format!("SET {session_key} {}", "x".repeat(257)),
    ] {
        redis(&format!("DEL {epoch_key} {session_key}")).await;
        redis(&format!("SET {epoch_key} {}", "a".repeat(32))).await;
        redis(&command).await;
        acme.cache_standing_of(&signed_out_client.user_id).await;
        assert_signed_out(&signed_out_client).await;
        let stored_epoch = redis_value(&epoch_key).await;
        let is_epoch = stored_epoch.len() == 32 && Uuid::try_parse(&stored_epoch).is_ok();
        assert!(is_epoch, "{command:.80}: {stored_epoch:.80}");
        assert_eq!(
            redis(&format!("EXISTS {session_key}")).await.trim(),
            ":0\r\n+OK",
            "{command:.80}"
        );
        assert!(is_signed_in(&ada).await);
        let (entry, _, new_client) = sign_in_until_cached(&app, &ada).await;
        assert!(!entry.is_empty() && is_signed_in(&new_client).await);
    }
}

/// H05: after a failover, the new master has the entry of a session but not its end, and its clock
/// is behind, so that the entry seems to be young.
#[tokio::test]
async fn an_old_entry_on_a_promoted_replica_revives_no_session() {
    let (master, new_master) = (PrivateRedis::start().await, PrivateRedis::start().await);
    let app = TestApp::with_settings(|values| values.set("REDIS_URL", master.url())).await;
    let proxy = Proxy::to_redis(master.socket()).await;
    let url = proxy.redis_url();
    let replica = TestApp::on_database(&app.database, |values| values.set("REDIS_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let admin = acme.on_server(&replica.channel);
    let script_count = || async {
        let name = "db_client_operation_duration_seconds_count{db_system_name=\"redis\",\
                    db_operation_name=\"EVALSHA\",error_type=\"\"}";
        replica.metric(name).await.unwrap_or_default()
    };
    // A replica asks Redis about sessions when it has followed the change feed for some seconds.
    wait_until(20, || async {
        admin.cache_standing_of(&ada.user_id).await;
        let session = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        is_signed_in(&session.on_server(&replica.channel)).await && script_count().await > 0.0
    })
    .await;
    // The sign-in caches the session.
    let victim = app.anonymous().login("acme", &ada.email, PASSWORD).await;
    let epoch_key = format!("session-epoch:{{{}}}", acme.tenant_id);
    for key in [&epoch_key, &session_key(&victim)] {
        let reply = master.ask(&format!("GET {key}")).await;
        let value = reply.lines().nth(1).expect("a value");
        new_master.ask(&format!("SET {key} \"{value}\"")).await;
    }
    let ended_at = Instant::now();
    let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
    acme.sessions().revoke_session(request).await.expect("revoked");
    proxy.shift_clock(-2_000);
    proxy.switch_to(new_master.socket());

    let victim_on_replica = victim.on_server(&replica.channel);
    let scripts_before = script_count().await;
    let mut other_sessions = Vec::new();
    for _ in 0..2 {
        other_sessions.push(app.anonymous().login("acme", &ada.email, PASSWORD).await);
    }
    // Asks for 4 s, and until the replica has asked the new master: its client needs some time to
    // connect again.
    while ended_at.elapsed() < Duration::from_secs(4) || script_count().await <= scripts_before {
        assert!(ended_at.elapsed() < Duration::from_mins(1), "the replica did not ask Redis");
        // The server asks Redis about a session only if the standing of the subject is cached.
        admin.cache_standing_of(&ada.user_id).await;
        let is_late = ended_at.elapsed() > Duration::from_secs(1);
        // The end of another session must not make the replica forget that the first session has
        // ended.
        if let Some(other) = other_sessions.pop_if(|_| is_late) {
            other.auth().logout(LogoutRequest::default()).await.expect("signed out");
        }
        let is_live = is_signed_in(&victim_on_replica).await;
        assert!(!(is_late && is_live), "live after {:?}", ended_at.elapsed());
    }
}
