//! The duration of a failed sign-in does not reveal the cause of the failure.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, LoginRequest, UpdateUserRequest,
    create_user_request::Credential,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, unique_text};

/// Number of measurements per cause. The number is below the number of failures from all networks
/// after which the sign-ins of an account are limited.
const MEASUREMENTS: usize = 90;

/// Number of measurements per cause in a test where each measurement takes [`FAILURE_TIME`].
const SLOW_MEASUREMENTS: usize = 16;

/// Fixed duration of a failed sign-in. Well above the time to compare a password with the most
/// expensive hash that may be imported, even on a busy machine.
const FAILURE_TIME: &str = "3s";

/// Upper limit of the distance between two lists of measurements. Measurements of the same
/// distribution exceed the threshold with a probability of 1e-6 (two-sample Kolmogorov-Smirnov
/// test, `sqrt(-ln(1e-6 / 2) / measurements)`).
fn distance_threshold(measurements: usize) -> f64 {
    (-(1e-6_f64 / 2.0).ln() / as_float(measurements)).sqrt()
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a count below 2^32"))
}

/// Kolmogorov-Smirnov distance between the distributions of two sorted lists of times, from 0 to 1.
fn distance(first_times: &[Duration], second_times: &[Duration]) -> f64 {
    let fraction_up_to = |times: &[Duration], point: Duration| {
        as_float(times.partition_point(|time| *time <= point)) / as_float(times.len())
    };
    let points = first_times.iter().chain(second_times);
    points
        .map(|&point| {
            (fraction_up_to(first_times, point) - fraction_up_to(second_times, point)).abs()
        })
        .fold(0.0, f64::max)
}

/// Asserts that for every two causes the distance of their times is below the threshold.
fn assert_same_distribution(causes: &[(&str, Vec<Duration>)]) {
    let mut causes = causes.to_vec();
    for (_, times) in &mut causes {
        times.sort_unstable();
    }
    for (index, (first_cause, first_times)) in causes.iter().enumerate() {
        for (second_cause, second_times) in &causes[index + 1..] {
            let measured = distance(first_times, second_times);
            let medians =
                (first_times[first_times.len() / 2], second_times[second_times.len() / 2]);
            let threshold = distance_threshold(first_times.len());
            assert!(
                measured < threshold,
                "{first_cause:?} and {second_cause:?}: {measured}, {medians:?}"
            );
        }
    }
}

/// Duration of a sign-in with a wrong password. Each round uses its own client network.
async fn time_failed_sign_in(app: &TestApp, round: usize, slug: &str, email: &str) -> Duration {
    let client = app.anonymous().with_metadata("x-forwarded-for", &format!("198.18.7.{round}"));
    let request = LoginRequest {
        email: email.into(),
        password: "not this one".into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    };
    let mut auth = client.auth();
    let start = Instant::now();
    let reply = auth.login(request).await;
    let duration = start.elapsed();
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    duration
}

/// B07: the causes of a failed sign-in have the same distribution of durations.
#[tokio::test]
async fn causes_of_failure_cannot_be_distinguished_by_time() {
    let app =
        TestApp::with_production_hash_cost(|values| values.set("TRUSTED_PROXIES", "127.0.0.1"))
            .await;
    let acme = app.create_tenant("acme").await;
    let disabled = acme.create_user("disabled@acme.test").await;
    let request = DisableUserRequest { user_id: disabled };
    acme.users().disable_user(request).await.expect("disabled");
    acme.create_user_without_password("invited@acme.test").await;
    // Failures with an unknown tenant are counted by email, across all unknown tenants.
    let unknown_tenant_email = format!("{}@nowhere.test", unique_text());
    let mut causes = [
        ("wrong password", "acme", "admin@acme.test"),
        ("no such user", "acme", "nobody@acme.test"),
        ("no such tenant", "nowhere", unknown_tenant_email.as_str()),
        ("disabled", "acme", "disabled@acme.test"),
        ("without a password", "acme", "invited@acme.test"),
    ]
    .map(|(cause, slug, email)| ((cause, Vec::new()), slug, email));
    for round in 0..MEASUREMENTS {
        // The causes alternate, so that a slow phase of the machine affects all causes.
        for ((_, times), slug, email) in &mut causes {
            times.push(time_failed_sign_in(&app, round, slug, email).await);
        }
    }
    assert_same_distribution(&causes.map(|(cause_and_times, ..)| cause_and_times));
}

/// Creates a user with an imported bcrypt hash of this cost.
async fn import_user(admin: &Client, email: &str, cost: u32) -> String {
    let hash = bcrypt::hash_with_salt(PASSWORD, cost, [7; 16]).expect("bcrypt").to_string();
    let request = CreateUserRequest {
        email: email.into(),
        credential: Some(Credential::PasswordHash(hash)),
        ..CreateUserRequest::default()
    };
    let reply = admin.users().create_user(request).await.expect("imported");
    reply.into_inner().user.expect("the user").id
}

/// N13: the check of an imported hash takes a different amount of time than the check of a hash
/// that the server made, so the server answers all failures after a fixed time.
#[tokio::test]
async fn imported_users_cannot_be_distinguished_by_time() {
    let app = TestApp::with_production_hash_cost(|values| {
        values.set("TRUSTED_PROXIES", "127.0.0.1");
        values.set("SIGN_IN_FAILURE_TIME", FAILURE_TIME);
    })
    .await;
    let acme = app.create_tenant("acme").await;
    for cost in [4, 10, 12] {
        import_user(&acme, &format!("cost-{cost}@acme.test"), cost).await;
    }
    let user_id = import_user(&acme, "disabled@acme.test", 12).await;
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    let unreadable = import_user(&acme, "unreadable@acme.test", 4).await;
    sqlx::query("update credentials set password_hash = 'none' where user_id = $1::uuid")
        .bind(&unreadable)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the hash is replaced");
    let mut causes = [
        ("argon2id", "admin@acme.test"),
        ("no such user", "nobody@acme.test"),
        ("bcrypt of cost 4", "cost-4@acme.test"),
        ("bcrypt of cost 10", "cost-10@acme.test"),
        ("bcrypt of cost 12", "cost-12@acme.test"),
        ("bcrypt, disabled", "disabled@acme.test"),
        ("unreadable", "unreadable@acme.test"),
    ]
    .map(|(cause, email)| ((cause, Vec::new()), email));
    for round in 0..SLOW_MEASUREMENTS {
        // The causes run concurrently, because each call mostly waits. The first cause changes in
        // each round.
        causes.rotate_left(1);
        let failures =
            causes.iter().map(|(_, email)| time_failed_sign_in(&app, round, "acme", email));
        let durations = join_all(failures).await;
        for (((_, times), _), duration) in causes.iter_mut().zip(durations) {
            times.push(duration);
        }
    }
    assert_same_distribution(&causes.map(|(cause_and_times, _)| cause_and_times));
}

/// N13: only a failed sign-in waits for the fixed time, and at most until the call's deadline.
#[tokio::test]
async fn the_response_to_a_correct_password_does_not_wait_for_the_failure_time() {
    let app =
        TestApp::with_production_hash_cost(|values| values.set("SIGN_IN_FAILURE_TIME", "10s"))
            .await;
    let acme = app.create_tenant("acme").await;
    let login_request = |password: &str| {
        let request = LoginRequest {
            email: acme.email.clone(),
            password: password.into(),
            organization_slug: "acme".into(),
            ..LoginRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        request
    };
    app.anonymous()
        .auth()
        .login(login_request(PASSWORD))
        .await
        .expect("the response arrives before the deadline");
    let status =
        app.anonymous().auth().login(login_request("wrong")).await.expect_err("the call times out");
    // CANCELLED when the client's own timer fires first.
    let code = status.code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
}

/// N13: a user who changes the email sends the current password. The response to a wrong current
/// password is delayed until the time of a failed sign-in.
#[tokio::test]
async fn a_wrong_current_password_in_a_change_of_email_is_delayed_like_a_failed_sign_in() {
    let app =
        TestApp::with_production_hash_cost(|values| values.set("SIGN_IN_FAILURE_TIME", "10s"))
            .await;
    let acme = app.create_tenant("acme").await;
    let change = async |password: &str| {
        let request = UpdateUserRequest {
            user_id: acme.user_id.clone(),
            email: Some("new@acme.test".into()),
            current_password: Some(password.into()),
            ..UpdateUserRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        acme.users().update_user(request).await
    };
    let status = change("wrong").await.expect_err("the call times out");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    change(PASSWORD).await.expect("the response arrives before the deadline");
}
