//! Who gives wrong passwords waits, and nobody else does.

use std::time::Duration;

use futures::future::join_all;
use tenantry::proto::v1::{ChangePasswordRequest, GetJwksRequest, WhoAmIRequest};
use tonic::Code;

use super::{address, at, believing, guess, sign_in, wait, wrong};
use crate::harness::{Client, PASSWORD, Proxy, TestApp, Then, redis, refused, unknown_id, until};

/// The failures from one network that cost nothing.
const FREE: usize = 10;

async fn acme() -> (TestApp, Client) {
    let app = TestApp::with_full_hashes(|values| {
        believing(values);
        // All are of one tenant, which has a part of each.
        values.set("HASHING_QUEUE", "2000");
        values.set("MAX_REQUESTS", "8000");
    })
    .await;
    let acme = app.tenant("acme").await;
    (app, acme)
}

/// Lets all waits of a tenant's accounts be over.
async fn let_time_pass(acme: &Client) {
    let listed = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    for key in listed.lines().filter(|line| line.contains(":here:") || line.contains(":everywhere"))
    {
        redis(&format!("HSET {} until 0", key.trim())).await;
    }
}

/// B10, R8
#[tokio::test]
async fn ten_failures_make_that_network_wait_and_not_the_owner() {
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
    // The owner's success is no pardon for the attacker.
    wait(guess(&attacker, &acme.email, "acme").await);

    // Each further failure doubles the wait, up to an hour.
    for doubled in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        let_time_pass(&acme).await;
        wrong(guess(&attacker, &acme.email, "acme").await);
        let told = wait(guess(&attacker, &acme.email, "acme").await).as_secs();
        assert!(told > doubled - 5 && told <= doubled, "{told} s, not {doubled}");
    }
}

#[tokio::test]
async fn a_success_forgets_the_failures() {
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
async fn accounts_that_do_not_exist_are_limited_alike() {
    let (app, _) = acme().await;
    for slug in ["acme", "nowhere"] {
        let client = at(&app, &address());
        let [nobody, somebody] = [(); 2].map(|()| format!("{}@acme.test", unknown_id()));
        for _ in 0..FREE {
            wrong(guess(&client, &nobody, slug).await);
        }
        wait(guess(&client, &nobody, slug).await);
        // Another account, as far as anybody can tell, has its own count.
        wrong(guess(&client, &somebody, slug).await);
    }
}

/// B12
#[tokio::test]
async fn many_guesses_at_once_are_no_more_than_one_after_the_other() {
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
        let status = reply.expect_err("found by guessing");
        match status.code() {
            Code::Unauthenticated => compared += 1,
            _ => _ = wait(status),
        }
    }
    assert!((FREE..=60).contains(&compared), "{compared} were compared");
    let right = sign_in(&acme.email, "acme", PASSWORD);
    wait(attacker.auth().login(right).await.expect_err("it must wait"));
}

/// R8
#[tokio::test]
async fn a_hundred_failures_from_many_networks_spare_those_that_the_owner_knows() {
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
    // That was a success: nobody waits for what was before.
    at(&app, &address()).auth().login(right()).await.expect("signs in elsewhere");
}

/// A wrong current password is a guess too.
#[tokio::test]
async fn who_has_a_session_can_not_guess_its_password() {
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

/// The keys of a tenant's guesses.
async fn keys(acme: &Client) -> Vec<String> {
    let listed = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    listed.lines().filter(|line| line.starts_with("guess:")).map(|key| key.trim().into()).collect()
}

/// N26: a wait that began while Redis's clock was years ahead.
#[tokio::test]
async fn no_clock_makes_a_wait_longer_than_an_hour() {
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
        assert!((0..=3_600_000).contains(&life), "it ends: {life}");
        let kept = redis(&format!("HGET {here} until")).await;
        assert!(!kept.contains(until), "the wait goes down: {kept}");
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

/// N23: keys that hold something else are removed, and guesses go on.
#[tokio::test]
async fn guesses_are_counted_without_keys_of_a_wrong_type() {
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

/// The failures of a tenant's accounts, in all networks.
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

/// N18: a guess that is given up is compared, counted and recorded like a wrong one, also the
/// right password.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_that_are_given_up_count_and_are_recorded() {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        believing(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let network = address();
    let attacker = at(&app, &network);
    let thief = acme.on(&app.channel).with("x-forwarded-for", &network);
    thief.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    // From here on this replica reaches Redis: what it counted alone would not be seen.
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
        // Who learns nothing from a right one must not learn it unseen.
        let password = if given_up == FREE { PASSWORD } else { "not this one" };
        // A sign-in asks Postgres about its slug.
        proxy.when_sent(if is_change { "from credentials" } else { "acme" }, Then::Hold);
        tokio::select! {
            _ = changes.change_password(change), if is_change => panic!("it was held"),
            _ = guesses.login(sign_in(&acme.email, "acme", password)), if !is_change => {
                panic!("it was held")
            }
            () = proxy.until_held() => {}
        }
        // By the time that this is answered the server has heard of it.
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

/// N15: a tenant that does not exist is counted like one that does: apart from others.
#[tokio::test]
async fn tenants_that_do_not_exist_are_counted_apart() {
    let app = TestApp::with(|values| {
        believing(values);
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

/// N23: a value that can't be one of ours begins anew: there is no guess without a count.
#[tokio::test]
async fn guesses_are_counted_whatever_their_keys_hold() {
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
