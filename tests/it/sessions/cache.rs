//! A wrong entry in the session cache never makes an ended session live.

use std::sync::atomic::{AtomicBool, Ordering};

use tenantry::proto::v1::{
    LoginRequest, LogoutRequest, RevokeAllSessionsRequest, RevokeSessionRequest, WhoAmIRequest,
};
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Client, OwnRedis, PASSWORD, Proxy, TestApp, Then, redis, refused, until};

async fn is_signed_in(client: &Client) -> bool {
    client.auth().who_am_i(WhoAmIRequest {}).await.is_ok()
}

async fn is_signed_out(client: &Client) {
    let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
}

fn session_key(client: &Client) -> String {
    format!("session:{{{}}}:{}", client.tenant_id, client.tokens.session_id)
}

fn sign_in(client: &Client, device: &str) -> LoginRequest {
    LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        device_name: device.into(),
    }
}

#[tokio::test]
async fn a_session_is_cached_until_it_ends() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let is_cached = || async {
        let again = app.anonymous().login("acme", &acme.email, PASSWORD).await;
        let entry = redis(&format!("GET {}", session_key(&again))).await;
        let life = redis(&format!("PTTL {}", session_key(&again))).await;
        assert!(!life.contains("-1"), "the entry does not expire: {life}");
        entry.contains(&acme.user_id)
    };
    until(10, is_cached).await;
    acme.auth().logout(LogoutRequest::default()).await.expect("signed out");
    is_signed_out(&acme).await;
}

/// H05: Redis is only a cache for sessions.
#[tokio::test]
async fn an_emptied_redis_neither_revives_nor_ends_sessions() {
    let redis = OwnRedis::start().await;
    let app = TestApp::with(|values| values.set("REDIS_URL", redis.url())).await;
    let acme = app.tenant("acme").await;
    let gone = acme.member("ada", &[]).await;
    gone.auth().logout(LogoutRequest::default()).await.expect("signed out");
    redis.ask("FLUSHALL").await;
    is_signed_out(&gone).await;
    assert!(is_signed_in(&acme).await);
    redis.ask("SCRIPT FLUSH").await;
    is_signed_out(&gone).await;
    assert!(is_signed_in(&acme).await);
}

/// F16: a cache entry answers only its own question.
#[tokio::test]
async fn an_entry_is_valid_only_for_its_own_user_session_and_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let ada = a.member("ada", &[]).await;
    assert!(is_signed_in(&a).await && is_signed_in(&b).await);
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    assert!(is_signed_in(&a).await);
    for other in [&a, &b] {
        redis(&format!("COPY {} {} REPLACE", session_key(other), session_key(&ada))).await;
        is_signed_out(&ada).await;
    }
}

/// A read of Postgres that began before the session ended writes no entry after the end.
#[tokio::test]
async fn a_slow_read_does_not_revive_a_session() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let victim = acme.member("victim", &[]).await;
    let postgres = Proxy::postgres().await;
    let url = postgres.postgres_url(&app.database);
    let slow = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = victim.on(&slow.channel);
    redis(&format!("DEL {}", session_key(&victim))).await;

    let session: Uuid = victim.tokens.session_id.parse().expect("an id");
    postgres.when_sent(session.as_bytes(), Then::HoldReplies);
    let revoked = async {
        postgres.until_held().await;
        let request = RevokeSessionRequest { session_id: session.to_string() };
        acme.sessions().revoke_session(request).await.expect("ended");
        postgres.pass();
    };
    // The call began before the session ended, so either answer is correct.
    let (_, ()) = tokio::join!(is_signed_in(&replica_client), revoked);
    // The replica gets the end of the session from the feed within a second.
    until(1, || async { !is_signed_in(&replica_client).await }).await;
    is_signed_out(&replica_client).await;
    is_signed_out(&victim).await;
}

/// H05: a valid entry may be older than the changes that a new replica has read from the feed.
#[tokio::test]
async fn a_replica_that_has_just_started_revives_no_session() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let proxy = Proxy::redis().await;
    let url = proxy.redis_url();
    let cut_off = TestApp::on(&app.database, |values| values.set("REDIS_URL", url)).await;
    let admin = acme.on(&cut_off.channel);
    admin.may(&ada.user_id, "doc:read").await;
    proxy.cut();

    for _ in 0..5 {
        let victim = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
        admin.sessions().revoke_session(request).await.expect("ended");
        let young = TestApp::on(&app.database, |_| {}).await;
        // Put the subject into the cache, because only then the server asks Redis about the
        // session.
        acme.on(&young.channel).may(&ada.user_id, "doc:read").await;
        is_signed_out(&victim.on(&young.channel)).await;
    }
}

/// A sign-in writes its session into the cache only if the session has not ended meanwhile.
#[tokio::test]
async fn a_slow_sign_in_does_not_revive_a_session() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let postgres = Proxy::postgres().await;
    let url = postgres.postgres_url(&app.database);
    let slow = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;

    // The statement that creates the session contains the compared password hash.
    postgres.when_sent("$argon2id$", Then::HoldReplies);
    let anonymous = slow.anonymous();
    let revoked = async {
        postgres.until_held().await;
        let request = RevokeAllSessionsRequest { user_id: ada.user_id.clone() };
        let reply = acme.sessions().revoke_all_sessions(request).await.expect("ended");
        assert_eq!(reply.into_inner().revoked_count, 2, "the new session ends too");
        postgres.pass();
    };
    let mut auth = anonymous.auth();
    let (reply, ()) = tokio::join!(auth.login(sign_in(&ada, "a slow device")), revoked);
    let tokens = reply.expect("opened before it ended").into_inner();
    is_signed_out(&anonymous.with_token(&tokens.access_token)).await;
}

/// H04: a write that a hanging Redis executes late must not hide later changes.
#[tokio::test]
async fn a_late_cache_entry_is_as_old_as_the_read_behind_it() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let victim = acme.member("victim", &[]).await;
    let (nearby, remote) = (Proxy::redis().await, Proxy::redis().await);
    let (nearby_url, remote_url) = (nearby.redis_url(), remote.redis_url());
    let hanging = TestApp::on(&app.database, |values| values.set("REDIS_URL", nearby_url)).await;
    let cut_off = TestApp::on(&app.database, |values| values.set("REDIS_URL", remote_url)).await;
    let mut owner = app.owner().await;
    redis(&format!("DEL {}", session_key(&victim))).await;

    // Wait until this replica has followed the feed for long enough to use the session cache.
    let fills = || async {
        let mut probe = acme.on(&hanging.channel);
        let reply = probe.auth().login(sign_in(&acme, "")).await.expect("signed in");
        probe.tokens = reply.into_inner();
        redis(&format!("DEL {}", session_key(&probe))).await;
        assert!(is_signed_in(&probe.with_token(&probe.tokens.access_token)).await);
        redis(&format!("EXISTS {}", session_key(&probe))).await.contains(":1")
    };
    until(10, fills).await;
    // The server asks Redis only about sessions whose subject is in the cache.
    acme.on(&hanging.channel).may(&victim.user_id, "doc:read").await;
    // Only the write of an entry contains the user's id.
    nearby.when_sent(&victim.user_id, Then::Hold);
    let victim = victim.on(&hanging.channel);
    until(10, || is_signed_in(&victim)).await;
    nearby.until_held().await;
    remote.cut();
    let admin = acme.on(&cut_off.channel);
    let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
    admin.sessions().revoke_session(request).await.expect("ended");

    let a_second_later = "select pg_sleep(1 - extract(epoch from clock_timestamp() - revoked_at))
                          from sessions where session_id = $1::uuid";
    sqlx::query(a_second_later)
        .bind(&victim.tokens.session_id)
        .execute(&mut owner)
        .await
        .expect("waited");
    nearby.pass();
    is_signed_out(&victim).await;
    acme.may(&victim.user_id, "doc:read").await;
    is_signed_out(&victim.on(&app.channel)).await;
}

#[tokio::test]
async fn callers_that_never_stop_see_the_end_of_their_session() {
    let app = TestApp::spawn().await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let acme = app.tenant("acme").await;
    for round in 0..10 {
        let victim = acme.member(&format!("victim-{round}"), &[]).await;
        let is_finished = AtomicBool::new(false);
        let calls = (0..8).map(|n| {
            let caller = victim.on(if n % 2 == 0 { &app.channel } else { &second_replica.channel });
            let is_finished = &is_finished;
            async move {
                while !is_finished.load(Ordering::Relaxed) {
                    is_signed_in(&caller).await;
                }
            }
        });
        let end = async {
            until(10, || is_signed_in(&victim)).await;
            let request = RevokeAllSessionsRequest { user_id: victim.user_id.clone() };
            acme.sessions().revoke_all_sessions(request).await.expect("ended");
            is_signed_out(&victim).await;
            // The other replica gets the end of the session within a second, and the call itself
            // also takes time.
            let replica_client = victim.on(&second_replica.channel);
            until(2, || async { !is_signed_in(&replica_client).await }).await;
            for channel in [&app.channel, &second_replica.channel].repeat(10) {
                is_signed_out(&victim.on(channel)).await;
            }
            is_finished.store(true, Ordering::Relaxed);
        };
        tokio::join!(futures::future::join_all(calls), end);
    }
}

/// Signs in. Returns the cache entry of the new session, the epoch of that entry, and the
/// client.
async fn cached(app: &TestApp, of: &Client) -> (String, String, Client) {
    let found = tokio::sync::Mutex::new(None);
    let is_cached = || async {
        let client = app.anonymous().login(&of.slug, &of.email, PASSWORD).await;
        let entry = value(&session_key(&client)).await;
        let epoch = value(&epoch_key(&client)).await;
        let is_cached = entry.starts_with(&client.user_id);
        *found.lock().await = Some((entry, epoch, client));
        is_cached
    };
    until(10, is_cached).await;
    found.into_inner().expect("cached")
}

/// Value of a Redis key.
async fn value(key: &str) -> String {
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
    let acme = app.tenant("acme").await;
    let victim = acme.member("victim", &[]).await;
    let (entry, epoch, victim) = cached(&app, &victim).await;
    let (other, _, another) = cached(&app, &victim).await;
    let request = RevokeSessionRequest { session_id: victim.tokens.session_id.clone() };
    acme.sessions().revoke_session(request).await.expect("ended");
    // A replica that starts later never reads the end from the feed, so it uses Redis.
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let (acme, victim) = (acme.on(&second_replica.channel), victim.on(&second_replica.channel));
    acme.may(&victim.user_id, "doc:read").await;
    let a_second_later = "select pg_sleep(1.1)";
    sqlx::query(a_second_later).execute(&mut app.owner().await).await.expect("waited");

    let key = session_key(&victim);
    let parts: Vec<_> = entry.split(' ').collect();
    let [user, of_epoch, looked_up, written, tag] = parts[..] else { panic!("{entry}") };
    let mut forged = vec![entry.clone(), other];
    for time in ["nan", "inf", "-nan", "1e300", "99999999999999"] {
        forged.push(format!("{user} {of_epoch} {time} {written} {tag}"));
        forged.push(format!("{user} {of_epoch} {looked_up} {time} {tag}"));
        forged.push(format!("{user} {of_epoch} {time} {time} {tag}"));
    }
    let mut commands: Vec<_> =
        forged.iter().map(|entry| format!("SET {key} \"{entry}\"")).collect();
    commands.push(format!("HSET {key} epoch {epoch} user {user} looked_up nan"));
    for command in commands {
        redis(&format!("DEL {key}")).await;
        redis(&format!("SET {} {epoch}", epoch_key(&victim))).await;
        redis(&command).await;
        // Put the subject into the cache, so that the server asks Redis about the session.
        acme.may(&victim.user_id, "doc:read").await;
        is_signed_out(&victim).await;
    }
    assert!(is_signed_in(&another).await);
}

/// N23: a key with a value of another type is treated as missing.
#[tokio::test]
async fn keys_of_a_wrong_type_neither_end_nor_revive_sessions() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let gone = acme.member("gone", &[]).await;
    gone.auth().logout(LogoutRequest::default()).await.expect("signed out");
    for key in [epoch_key(&ada), session_key(&ada), session_key(&gone)] {
        redis(&format!("DEL {key}")).await;
        redis(&format!("LPUSH {key} x")).await;
        for user in [&ada, &gone] {
            acme.may(&user.user_id, "doc:read").await;
        }
        assert!(is_signed_in(&ada).await, "{key}");
        is_signed_out(&gone).await;
        let again = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        assert!(is_signed_in(&again).await, "{key}");
        again.auth().logout(LogoutRequest::default()).await.expect("signed out");
        is_signed_out(&again).await;
    }
}

/// N23: a value larger than any that the server writes is deleted without being read.
#[tokio::test]
async fn oversized_values_are_replaced() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let gone = acme.member("gone", &[]).await;
    gone.auth().logout(LogoutRequest::default()).await.expect("signed out");
    // A replica remembers only for a short time which sessions have ended.
    let a_second_later = "select pg_sleep(1.1)";
    sqlx::query(a_second_later).execute(&mut app.owner().await).await.expect("waited");
    let (epoch, session) = (epoch_key(&acme), session_key(&gone));
    for command in [
        format!("SETRANGE {epoch} 1000000 x"),
        format!("SET {epoch} x"),
        format!("SET {epoch} {}", "x".repeat(32)),
        format!("SETRANGE {session} 1000000 x"),
        format!("SET {session} {}", "x".repeat(257)),
    ] {
        redis(&format!("DEL {epoch} {session}")).await;
        redis(&format!("SET {epoch} {}", "a".repeat(32))).await;
        redis(&command).await;
        acme.may(&gone.user_id, "doc:read").await;
        is_signed_out(&gone).await;
        let kept = value(&epoch).await;
        let is_epoch = kept.len() == 32 && Uuid::try_parse(&kept).is_ok();
        assert!(is_epoch, "{command:.80}: {kept:.80}");
        assert_eq!(redis(&format!("EXISTS {session}")).await.trim(), ":0\r\n+OK", "{command:.80}");
        assert!(is_signed_in(&ada).await);
        let (entry, _, again) = cached(&app, &ada).await;
        assert!(!entry.is_empty() && is_signed_in(&again).await);
    }
}
