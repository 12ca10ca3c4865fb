//! Effect of one tenant's load on another tenant. A tenant that registered itself sends the
//! worst load that the server allows: sign-ins with the most expensive hashes, wrong passwords,
//! the largest batches about the largest subject, slow writes, searches, and calls that it
//! cancels. The decisions and sign-ins of another tenant are measured without and with that
//! load.
//!
//! A refused call of the noisy tenant is repeated after a pause, so that the benchmark measures
//! the tenant's work and not how many refusals a core can send.

use std::time::Duration;

use prost::Message;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, ListUsersRequest, LoginRequest, UpdateRoleRequest,
};

use super::{Bench, USERS, requests};
use crate::{
    load::{Calls, Pace, Part, Request, Verdict},
    report::{Figure, Target},
    world::{
        noisy::{self, NoisyTenant},
        server::Server,
        shape::Shape,
    },
};

/// Rate of the quiet tenant's decisions, as a share of the server's highest rate.
const MODERATE: f64 = 0.1;

/// Sign-ins of the quiet tenant in flight: two, which keep both hashing threads busy.
const SIGN_INS: Pace = Pace::Closed { connections: 1, streams: 2 };

/// Number of loads at the start of [`worst`] that need no more of Postgres than sign-ins do.
const WITHOUT_POSTGRES: usize = 4;

/// Pause of the noisy tenant after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// Timeout after which the noisy tenant cancels a call.
const GIVEN_UP: Duration = Duration::from_millis(5);

/// Number of addresses that a flood comes from (G02).
const ADDRESSES: u32 = 1000;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let noisy = bench.world.noisy_tenant(&server)?;
    beside_the_worst(bench, &server, &noisy)?;
    drop(server);
    beside_a_flood(bench, &noisy)
}

fn beside_the_worst(bench: &mut Bench, server: &Server, noisy: &NoisyTenant) -> anyhow::Result<()> {
    let tokens = bench.world.subjects_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);
    let sign_in = requests::sign_in(Shape { users: USERS });
    let both = |check_name, sign_in_name| {
        (check.clone().named(check_name), sign_in.clone().named(sign_in_name))
    };
    let calm = both("Check, quiet", "Login, quiet");
    let beside_some = both("Check, beside its sign-ins", "Login, beside its sign-ins");
    let beside_all = both("Check, beside the worst", "Login, beside the worst");
    let worst = worst(noisy);
    bench.warm(server, &check)?;

    let mut tail = Figure::new("Check beside the worst ÷ quiet, p99", Target::AtMost(2.0));
    let mut middle = Figure::record("Check beside the worst ÷ quiet, p50");
    let mut share =
        Figure::new("sign-ins beside the worst ÷ their fair share", Target::AtLeast(0.9));
    let mut less = Figure::record("Check beside its sign-ins and batches ÷ quiet, p99");
    let mut less_share = Figure::record("sign-ins beside its sign-ins and batches ÷ fair share");
    let mut refused = Figure::new("the other tenant's refused calls", Target::Exactly(0.0));
    let mut done = Figure::record("the noisy tenant's calls that were served, calls/s");

    for round in 1..=bench.effort.rounds {
        let most = bench.measure(round, server, &check, Pace::FULL)?;
        let pace = Pace::Open { rate: most.per_second * MODERATE };
        let mut measure = |(check, sign_in), loads: &[(Calls, Pace)]| {
            let addr = server.addr;
            let mut parts = vec![
                Part { calls: check, addr, pace },
                Part { calls: sign_in, addr, pace: SIGN_INS },
            ];
            parts.extend(loads.iter().map(|(calls, pace)| Part { calls, addr, pace: *pace }));
            bench.measure_all(round, server, &parts)
        };
        let quiet = measure((&calm.0, &calm.1), &[])?;
        let some = measure((&beside_some.0, &beside_some.1), &worst[..WITHOUT_POSTGRES])?;
        let loud = measure((&beside_all.0, &beside_all.1), &worst)?;

        tail.push(loud[0].p99 / quiet[0].p99);
        middle.push(loud[0].p50 / quiet[0].p50);
        // Two tenants sign in, so the fair share of each is half.
        share.push(loud[1].per_second / (quiet[1].per_second / 2.0));
        less.push(some[0].p99 / quiet[0].p99);
        less_share.push(some[1].per_second / (quiet[1].per_second / 2.0));
        refused.push(crate::number(loud[0].refused + loud[1].refused));
        done.push(loud[2..].iter().map(|run| run.per_second).sum());
    }
    bench.report.add([tail, middle, share, less, less_share, refused, done]);
    Ok(())
}

/// Measures decisions beside sign-ins of one tenant from very many addresses, above the
/// tenant's rate limit (G02).
fn beside_a_flood(bench: &mut Bench, noisy: &NoisyTenant) -> anyhow::Result<()> {
    let settings = [("RATE_LIMIT_SIGN_IN", "20/1m,60/1m"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = bench.world.serve(USERS, &settings)?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);
    let (calm, beside) =
        (check.clone().named("Check, no flood"), check.clone().named("Check, beside a flood"));
    let flood = flood(noisy);
    bench.warm(&server, &check)?;

    let mut tail = Figure::new(
        "Check beside a flood from 1,000 addresses ÷ without, p99",
        Target::AtMost(1.1),
    );
    let mut limited = Figure::record("sign-ins of the flood that were refused, share");
    for round in 1..=bench.effort.rounds {
        let most = bench.measure(round, &server, &check, Pace::FULL)?;
        let pace = Pace::Open { rate: most.per_second * MODERATE };
        let quiet = bench.measure(round, &server, &calm, pace)?;
        let parts = [
            Part { calls: &beside, addr: server.addr, pace },
            Part { calls: &flood, addr: server.addr, pace: Pace::Open { rate: 100.0 } },
        ];
        let loud = bench.measure_all(round, &server, &parts)?;
        tail.push(loud[0].p99 / quiet.p99);
        let all = crate::number(loud[1].refused + loud[1].calls).max(1.0);
        limited.push(crate::number(loud[1].refused) / all);
    }
    bench.report.add([tail, limited]);
    Ok(())
}

fn flood(noisy: &NoisyTenant) -> Calls {
    let email = |number| format!("nobody-{number}@noisy.test");
    let requests = (0..ADDRESSES).map(|number| sign_in(noisy, email(number), "x"));
    let addresses = (0..ADDRESSES)
        .filter_map(|number| format!("10.9.{}.{}", number / 250, number % 250 + 1).parse().ok());
    calls("Login, flood", "/tenantry.v1.AuthService/Login", requests.collect())
        .with_addresses(addresses.collect())
}

/// All loads that the noisy tenant sends at the same time.
fn worst(noisy: &NoisyTenant) -> Vec<(Calls, Pace)> {
    const LOGIN: &str = "/tenantry.v1.AuthService/Login";
    let each = |password: &str| -> Vec<Request> {
        noisy.imported.iter().map(|email| sign_in(noisy, email.clone(), password)).collect()
    };
    let streams = |streams| Pace::Closed { connections: 1, streams };
    let costly = calls("Login, imported hashes", LOGIN, each(&noisy.imported_password));
    let wrong = calls("Login, wrong passwords", LOGIN, each("a wrong password"));
    let given_up =
        calls("Login, given up", LOGIN, each("another wrong password")).cancelled_after(GIVEN_UP);
    let batches = vec![with_token(noisy, &batch(noisy))];
    let batches =
        calls("BatchCheck, largest", "/tenantry.v1.PermissionService/BatchCheck", batches);
    let writes = vec![with_token(noisy, &all_but(noisy, 0)), with_token(noisy, &all_but(noisy, 1))];
    let writes = calls("UpdateRole, largest", "/tenantry.v1.RoleService/UpdateRole", writes);
    let filter = r#"display_name = "nobody*""#.to_owned();
    let search = ListUsersRequest { filter, page_size: 1000, ..ListUsersRequest::default() };
    let searches = vec![with_token(noisy, &search)];
    let searches = calls("ListUsers, search", "/tenantry.v1.UserService/ListUsers", searches);
    vec![
        (costly, streams(8)),
        (wrong, streams(4)),
        (given_up, streams(4)),
        (batches, streams(2)),
        (writes, streams(30)),
        (searches, streams(2)),
    ]
}

fn sign_in(noisy: &NoisyTenant, email: String, password: &str) -> Request {
    let message = LoginRequest {
        email,
        password: password.to_owned(),
        organization_slug: noisy.slug.clone(),
        ..LoginRequest::default()
    };
    Request { token: None, message: message.encode_to_vec().into() }
}

fn with_token(noisy: &NoisyTenant, message: &impl Message) -> Request {
    Request { token: Some(noisy.token.clone()), message: message.encode_to_vec().into() }
}

/// A batch with the largest allowed number of questions. Each question compares every value of
/// every scope of the subject.
fn batch(noisy: &NoisyTenant) -> BatchCheckRequest {
    let item = BatchCheckItem {
        user_id: noisy.subject.clone(),
        permission: noisy::PERMISSION.to_owned(),
        scope: Some(noisy.nearly.clone()),
        ..BatchCheckItem::default()
    };
    BatchCheckRequest { items: vec![item; 1000], ..BatchCheckRequest::default() }
}

/// Changes the largest role. All callers wait for the lock on its row.
fn all_but(noisy: &NoisyTenant, left_out: usize) -> UpdateRoleRequest {
    let mut permissions = noisy.permissions.clone();
    permissions.remove(left_out);
    UpdateRoleRequest { role_id: noisy.role.clone(), permissions, ..UpdateRoleRequest::default() }
}

fn calls(name: &'static str, path: &'static str, requests: Vec<Request>) -> Calls {
    Calls::new(name, path, requests, |answer| match answer {
        Ok(_) => Verdict::Good,
        Err(_) => Verdict::Refused(PAUSE),
    })
}
