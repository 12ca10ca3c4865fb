//! Limits on wrong passwords: the guesser must wait, but the owner of the account must not.

use std::time::Duration;

use futures::future::join_all;
use tenantry::proto::v1::{ChangePasswordRequest, GetJwksRequest, WhoAmIRequest};
use tonic::Code;

use super::{address, at, guess, sign_in, trusting_local_proxy, wait, wrong};
use crate::harness::{Client, PASSWORD, Proxy, TestApp, Then, redis, refused, unknown_id, until};

/// Number of failures of one network before its sign-ins must wait.
const FREE: usize = 10;

async fn acme() -> (TestApp, Client) {
    let app = TestApp::with_full_hashes(|values| {
        trusting_local_proxy(values);
        // All calls are in one tenant, which may use only a part of each of these limits.
        values.set("HASHING_QUEUE", "2000");
        values.set("MAX_REQUESTS", "8000");
    })
    .await;
    let acme = app.tenant("acme").await;
    (app, acme)
}

/// Ends the waits of all accounts of a tenant.
async fn end_waits(acme: &Client) {
    let listed = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    for key in listed.lines().filter(|line| line.contains(":here:") || line.contains(":everywhere"))
    {
        redis(&format!("HSET {} until 0", key.trim())).await;
    }
}

/// B10, R8
#[tokio::test]
async fn ten_failures_make_their_network_wait_but_not_the_owner() {
    let (app, acme) = acme().await;
    let (attacker, owner) = (at(&app, &address()), at(&app, &address()));
    let right = || sign_in(&acme.email, "acme", PASSWORD);
    for _ in 0..FREE {
        wrong(guess(&attacker, &acme.email, "acme").await);
    }
    let first = wait(guess(&attacker, &acme.email, "acme").await);
    assert!(first > Duration::from_secs(25) && first <= Duration::from_secs(30), "{first:?}");
    wait(attacker.auth().login(right()).await.expect_err("it must wait"));
    owner.auth().login(right()).await.expect("signs in");
    // The owner's success does not end the attacker's wait.
    wait(guess(&attacker, &acme.email, "acme").await);

    // Each further failure doubles the wait, up to an hour.
    for doubled in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        end_waits(&acme).await;
        wrong(guess(&attacker, &acme.email, "acme").await);
        let told = wait(guess(&attacker, &acme.email, "acme").await).as_secs();
        assert!(told > doubled - 5 && told <= doubled, "waits {told} s instead of {doubled} s");
    }
}

#[tokio::test]
async fn a_success_resets_the_failures() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    for _ in 0..3 {
        for _ in 1..FREE {
            wrong(guess(&client, &acme.email, "acme").await);
        }
        let right = sign_in(&acme.email, "acme", PASSWORD);
        client.auth().login(right).await.expect("signs in");
    }
}

/// R9
#[tokio::test]
async fn unknown_accounts_are_limited_like_existing_ones() {
    let (app, _) = acme().await;
    for slug in ["acme", "nowhere"] {
        let client = at(&app, &address());
        let [nobody, somebody] = [(); 2].map(|()| format!("{}@acme.test", unknown_id()));
        for _ in 0..FREE {
            wrong(guess(&client, &nobody, slug).await);
        }
        wait(guess(&client, &nobody, slug).await);
        // Another unknown account has a count of its own, so the caller cannot see that neither
        // exists.
        wrong(guess(&client, &somebody, slug).await);
    }
}

/// B12
#[tokio::test]
async fn concurrent_guesses_are_limited_like_sequential_ones() {
    let (app, acme) = acme().await;
    let attacker = at(&app, &address());
    let guesses = (0..500).map(|at| {
        let (attacker, email) = (&attacker, &acme.email);
        async move {
            let password = if at == 400 { PASSWORD } else { "not this one" };
            attacker.auth().login(sign_in(email, "acme", password)).await
        }
    });
    let mut compared = 0;
    for reply in join_all(guesses).await {
        let status = reply.expect_err("the right password was compared");
        match status.code() {
            Code::Unauthenticated => compared += 1,
            _ => _ = wait(status),
        }
    }
    assert!((FREE..=60).contains(&compared), "{compared} passwords were compared");
    let right = sign_in(&acme.email, "acme", PASSWORD);
    wait(attacker.auth().login(right).await.expect_err("it must wait"));
}

/// R8
#[tokio::test]
async fn failures_from_many_networks_do_not_block_the_owners_known_network() {
    let (app, acme) = acme().await;
    let home = at(&app, &address());
    let right = || sign_in(&acme.email, "acme", PASSWORD);
    home.auth().login(right()).await.expect("signs in");
    for _ in 0..10 {
        let attacker = at(&app, &address());
        for _ in 0..FREE {
            wrong(guess(&attacker, &acme.email, "acme").await);
        }
    }
    wait(guess(&at(&app, &address()), &acme.email, "acme").await);
    wait(at(&app, &address()).auth().login(right()).await.expect_err("a network not known"));
    wrong(guess(&home, &acme.email, "acme").await);
    home.auth().login(right()).await.expect("signs in at home");
    // That success resets the count of the account, so no other network has to wait.
    at(&app, &address()).auth().login(right()).await.expect("signs in elsewhere");
}

/// A wrong current password is a guess too.
#[tokio::test]
async fn the_holder_of_a_session_cannot_guess_its_password() {
    let (app, acme) = acme().await;
    let thief = acme.with("x-forwarded-for", &address());
    let change = || async {
        let request = tenantry::proto::v1::ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        thief.auth().change_password(request).await
    };
    for _ in 0..FREE {
        refused(change().await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    wait(change().await.expect_err("it must wait"));
    let elsewhere = at(&app, &address());
    elsewhere.auth().login(sign_in(&acme.email, "acme", PASSWORD)).await.expect("signs in");
}

/// Redis keys of a tenant's guesses.
async fn keys(acme: &Client) -> Vec<String> {
    let listed = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    listed.lines().filter(|line| line.starts_with("guess:")).map(|key| key.trim().into()).collect()
}

/// N26: the wait was stored while Redis's clock was years ahead.
#[tokio::test]
async fn a_wrong_clock_makes_no_wait_longer_than_an_hour() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    wrong(guess(&client, &acme.email, "acme").await);
    let keys = keys(&acme).await;
    let here = keys.iter().find(|key| key.contains(":here:")).expect("a key");
    let underway = here.replace(":here:", ":underway:");
    for until in ["9999999999999", "inf", "1e300"] {
        redis(&format!("HSET {here} until {until}")).await;
        let told = wait(guess(&client, &acme.email, "acme").await);
        assert!(told <= Duration::from_hours(1), "{until}: {told:?}");
        let life = redis(&format!("PTTL {here}")).await;
        let life: i64 = life.lines().next().and_then(|l| l[1..].parse().ok()).expect("a number");
        assert!((0..=3_600_000).contains(&life), "the key expires in time: {life}");
        let kept = redis(&format!("HGET {here} until")).await;
        assert!(!kept.contains(until), "the wait is shortened: {kept}");
    }
    for until in ["nan", "-inf", "-1", "x"] {
        redis(&format!("HSET {here} until {until}")).await;
        wrong(guess(&client, &acme.email, "acme").await);
    }
    for command in [
        format!("SET {underway} 1000000 PX 315360000000"),
        format!("SET {underway} 1000000"),
        format!("SET {underway} nan"),
    ] {
        redis(&command).await;
        wrong(guess(&client, &acme.email, "acme").await);
    }
}

/// N23: keys with a value of another Redis type are removed, and counting continues.
#[tokio::test]
async fn keys_of_a_wrong_type_do_not_stop_the_counting_of_guesses() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    wrong(guess(&client, &acme.email, "acme").await);
    let counted = keys(&acme).await;
    assert!(counted.len() > 1, "{counted:?}");
    for key in counted {
        redis(&format!("DEL {key}")).await;
        redis(&format!("LPUSH {key} x")).await;
        wrong(guess(&client, &acme.email, "acme").await);
        let right = sign_in(&acme.email, "acme", PASSWORD);
        client.auth().login(right).await.expect("signs in");
    }
}

/// Sum of the failures of a tenant's accounts, over all networks.
async fn failures(acme: &Client) -> usize {
    let listed = redis(&format!("KEYS guess:{{{}}}*:here:*", acme.tenant_id)).await;
    let mut all = 0;
    for key in listed.lines().filter(|line| line.contains(":here:")) {
        let answer = redis(&format!("HGET {} failures", key.trim())).await;
        let counts = answer.lines().filter_map(|line| line.trim().parse::<usize>().ok());
        all += counts.sum::<usize>();
    }
    all
}

/// N18: a guess that the client cancels is compared, counted and recorded like a wrong one,
/// even with the right password.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_guesses_count_and_are_recorded() {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        trusting_local_proxy(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let network = address();
    let attacker = at(&app, &network);
    let thief = acme.on(&app.channel).with("x-forwarded-for", &network);
    thief.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    // Wait until this replica reaches Redis. Counts that it made alone would not show in Redis.
    let alone = async || app.metric("tenantry_rate_counted_alone_total").await;
    until(10, || async {
        let before = alone().await;
        wrong(guess(&at(&app, &address()), "nobody@nowhere.test", "nowhere").await);
        alone().await == before
    })
    .await;
    for given_up in 1..=FREE {
        let (mut guesses, mut changes) = (attacker.auth(), thief.auth());
        let change = ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        let is_change = given_up == 1;
        // The last guess has the right password. The client gets no answer, so the guess counts
        // as a failure too.
        let password = if given_up == FREE { PASSWORD } else { "not this one" };
        // A sign-in sends the slug to Postgres.
        proxy.when_sent(if is_change { "from credentials" } else { "acme" }, Then::Hold);
        tokio::select! {
            _ = changes.change_password(change), if is_change => panic!("it was held"),
            _ = guesses.login(sign_in(&acme.email, "acme", password)), if !is_change => {
                panic!("it was held")
            }
            () = proxy.until_held() => {}
        }
        // When this call is answered, the server has received the cancellation.
        for _ in 0..2 {
            attacker.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        }
        proxy.pass();
        until(10, || async { failures(&acme).await == given_up }).await;
    }
    wait(guess(&attacker, &acme.email, "acme").await);
    assert_eq!(direct.audited(&acme.tenant_id, "password_change_failed").await, 1);
    assert_eq!(direct.audited(&acme.tenant_id, "sign_in_failed").await, 9);
}

/// N15: a tenant that does not exist has a count of its own, like one that exists.
#[tokio::test]
async fn unknown_tenants_are_counted_separately() {
    let app = TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let [one, other] = [(); 2].map(|()| format!("nowhere-{}", &unknown_id()[24..]));
    let guess_at = async |slug: &str| guess(&at(&app, &address()), "who@x.test", slug).await;
    for _ in 0..5 {
        wrong(guess_at(&one).await);
    }
    wait(guess_at(&one).await);
    wrong(guess_at(&other).await);
}

/// N23: a value that the server cannot have written restarts the count. No guess stays
/// uncounted.
#[tokio::test]
async fn guesses_are_counted_whatever_values_their_keys_hold() {
    let (app, acme) = acme().await;
    let long = "9".repeat(1000);
    for (field, value) in [
        ("failures", "x"),
        ("failures", "9223372036854775807"),
        ("failures", "-1000000"),
        ("failures", &long),
        ("underway", "0.5"),
        ("underway", &long),
    ] {
        let (client, email) = (at(&app, &address()), format!("{}@acme.test", unknown_id()));
        let before = keys(&acme).await;
        wrong(guess(&client, &email, "acme").await);
        let mut made = keys(&acme).await;
        made.retain(|key| !before.contains(key));
        let find = |part: &str| made.iter().find(|key| key.contains(part)).expect("a key");
        let (here, everywhere) = (find(":here:"), find(":everywhere"));
        redis(&format!("DEL {everywhere}")).await;
        if field == "underway" {
            let key = here.replace(":here:", ":underway:");
            redis(&format!("DEL {here}")).await;
            redis(&format!("SET {key} {value} PX 20000")).await;
        } else {
            redis(&format!("HSET {here} {field} {value}")).await;
        }
        for _ in 0..FREE {
            wrong(guess(&client, &email, "acme").await);
        }
        wait(guess(&client, &email, "acme").await);
        for key in [here, everywhere] {
            let failures = redis(&format!("HGET {key} failures")).await;
            assert_eq!(failures.lines().nth(1), Some("10"), "{field} {value:.20}");
        }
    }
}
