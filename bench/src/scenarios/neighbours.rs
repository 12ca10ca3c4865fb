//! Effect of one tenant's load on another tenant. The noisy tenant, which registered itself, sends
//! the most expensive calls that the server allows: sign-ins with the most expensive hashes, wrong
//! passwords, the largest batches about the largest subject, slow writes, searches, and cancelled
//! calls. The scenario measures the decisions and sign-ins of a quiet tenant during this load and
//! without it.
//!
//! The noisy tenant pauses after each refused call. Otherwise the benchmark would measure the
//! highest rate of refusals.

use std::time::Duration;

use prost::Message;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, ListUsersRequest, LoginRequest, UpdateRoleRequest,
};

use super::{Bench, USERS, requests};
use crate::{
    load::{Calls, Load, LoadMode, Request, Verdict},
    report::{ScenarioResult, Target},
    world::{
        noisy::{self, NoisyTenant},
        server::Server,
        shape::{FIRST_SESSION, Shape},
    },
};

/// Rate of the quiet tenant's decisions, as a fraction of the server's highest rate.
const RATE_FRACTION: f64 = 0.1;

/// Load mode of the quiet tenant's sign-ins: two in flight, so that the hashing thread always has a
/// next password.
const SIGN_INS: LoadMode = LoadMode::Closed { connections: 1, streams: 2 };

/// Number of loads at the start of [`noisy_loads`] that send few queries to Postgres: the sign-ins
/// and the batches.
const LOADS_WITH_FEW_QUERIES: usize = 4;

/// Minimum pause of the noisy tenant after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// Time after which the noisy tenant cancels a call.
const CANCEL_AFTER: Duration = Duration::from_millis(5);

/// Number of client addresses of the flood of sign-ins.
const ADDRESSES: u32 = 1000;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let noisy = bench.world.create_noisy_tenant(&server)?;
    measure_noisy_loads(bench, &server, &noisy)?;
    drop(server);
    measure_sign_in_flood(bench, &noisy)
}

fn measure_noisy_loads(
    bench: &mut Bench,
    server: &Server,
    noisy: &NoisyTenant,
) -> anyhow::Result<()> {
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, FIRST_SESSION);
    let sign_in = requests::sign_in(Shape { users: USERS });
    let calls_with_names = |check_name, sign_in_name| {
        (check.clone().with_name(check_name), sign_in.clone().with_name(sign_in_name))
    };
    let quiet_calls = calls_with_names("Check, no noisy load", "Login, no noisy load");
    let some_load_calls = calls_with_names("Check, some noisy load", "Login, some noisy load");
    let full_load_calls = calls_with_names("Check, full noisy load", "Login, full noisy load");
    let noisy_loads = noisy_loads(noisy);
    bench.warm_up(server, &check)?;

    let mut tail =
        ScenarioResult::new("Check during the noisy load ÷ without it, p99", Target::AtMost(2.0));
    let mut median =
        ScenarioResult::without_target("Check during the noisy load ÷ without it, p50");
    let mut sign_in_share = ScenarioResult::new(
        "sign-ins during the noisy load ÷ their fair share",
        Target::AtLeast(0.9),
    );
    let mut some_load_tail =
        ScenarioResult::without_target("Check during noisy sign-ins and batches ÷ without, p99");
    let mut some_load_share =
        ScenarioResult::without_target("sign-ins during noisy sign-ins and batches ÷ fair share");
    let mut refused_calls =
        ScenarioResult::new("refused calls of the quiet tenant", Target::Exactly(0.0));
    let mut noisy_rate =
        ScenarioResult::without_target("served calls of the noisy tenant, calls/s");

    for round in 1..=bench.effort.rounds {
        let full_run = bench.measure(round, server, &check, LoadMode::FULL)?;
        let mode = LoadMode::Open { rate: full_run.per_second * RATE_FRACTION };
        let mut measure = |(check, sign_in), noisy_loads: &[(Calls, LoadMode)]| {
            let addr = server.addr;
            let mut loads = vec![
                Load { calls: check, addr, mode },
                Load { calls: sign_in, addr, mode: SIGN_INS },
            ];
            loads.extend(noisy_loads.iter().map(|(calls, mode)| Load { calls, addr, mode: *mode }));
            bench.measure_all(round, server, &loads)
        };
        let quiet_runs = measure((&quiet_calls.0, &quiet_calls.1), &[])?;
        let some_load_runs = measure(
            (&some_load_calls.0, &some_load_calls.1),
            &noisy_loads[..LOADS_WITH_FEW_QUERIES],
        )?;
        let full_load_runs = measure((&full_load_calls.0, &full_load_calls.1), &noisy_loads)?;

        // In each measurement, run 0 is Check, run 1 is Login, and the others are the noisy loads.
        tail.push(full_load_runs[0].p99 / quiet_runs[0].p99);
        median.push(full_load_runs[0].p50 / quiet_runs[0].p50);
        // Two tenants sign in, so the fair share of each tenant is half.
        let fair_share = quiet_runs[1].per_second / 2.0;
        sign_in_share.push(full_load_runs[1].per_second / fair_share);
        some_load_tail.push(some_load_runs[0].p99 / quiet_runs[0].p99);
        some_load_share.push(some_load_runs[1].per_second / fair_share);
        refused_calls.push(crate::to_f64(full_load_runs[0].refused + full_load_runs[1].refused));
        noisy_rate.push(full_load_runs[2..].iter().map(|run| run.per_second).sum());
    }
    bench.report.add_results([
        tail,
        median,
        sign_in_share,
        some_load_tail,
        some_load_share,
        refused_calls,
        noisy_rate,
    ]);
    Ok(())
}

/// G02: measures decisions during a flood of one tenant's sign-ins from very many addresses. The
/// flood exceeds the tenant's rate limit.
fn measure_sign_in_flood(bench: &mut Bench, noisy: &NoisyTenant) -> anyhow::Result<()> {
    // 20 sign-ins per minute and network, 60 sign-ins per minute and tenant.
    let settings = [("RATE_LIMIT_SIGN_IN", "20/1m,60/1m"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = bench.world.start_server(USERS, &settings)?;
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, FIRST_SESSION);
    let without_flood = check.clone().with_name("Check, no flood");
    let during_flood = check.clone().with_name("Check, during a flood");
    let flood = flood_calls(noisy);
    let flood_mode = LoadMode::Open { rate: 100.0 };
    bench.warm_up(&server, &check)?;

    let mut tail = ScenarioResult::new(
        "Check during a flood from 1,000 addresses ÷ without, p99",
        Target::AtMost(1.1),
    );
    let mut refused_fraction =
        ScenarioResult::without_target("refused fraction of the flood's sign-ins");
    for round in 1..=bench.effort.rounds {
        let full_run = bench.measure(round, &server, &check, LoadMode::FULL)?;
        let mode = LoadMode::Open { rate: full_run.per_second * RATE_FRACTION };
        let quiet_run = bench.measure(round, &server, &without_flood, mode)?;
        let loads = [
            Load { calls: &during_flood, addr: server.addr, mode },
            Load { calls: &flood, addr: server.addr, mode: flood_mode },
        ];
        let runs = bench.measure_all(round, &server, &loads)?;
        let (check_run, sign_in_run) = (&runs[0], &runs[1]);
        tail.push(check_run.p99 / quiet_run.p99);
        let all_sign_ins = crate::to_f64(sign_in_run.refused + sign_in_run.good_calls).max(1.0);
        refused_fraction.push(crate::to_f64(sign_in_run.refused) / all_sign_ins);
    }
    bench.report.add_results([tail, refused_fraction]);
    Ok(())
}

/// Sign-ins of unknown users, each from another address.
fn flood_calls(noisy: &NoisyTenant) -> Calls {
    let email = |number| format!("nobody-{number}@noisy.test");
    let requests = (0..ADDRESSES).map(|number| sign_in(noisy, email(number), "x"));
    let addresses = (0..ADDRESSES)
        .filter_map(|number| format!("10.9.{}.{}", number / 250, number % 250 + 1).parse().ok());
    calls_that_may_fail("Login, flood", "/tenantry.v1.AuthService/Login", requests.collect())
        .with_addresses(addresses.collect())
}

/// All loads that the noisy tenant sends at the same time.
fn noisy_loads(noisy: &NoisyTenant) -> Vec<(Calls, LoadMode)> {
    const LOGIN: &str = "/tenantry.v1.AuthService/Login";
    let sign_in_all = |password: &str| -> Vec<Request> {
        noisy.imported_emails.iter().map(|email| sign_in(noisy, email.clone(), password)).collect()
    };
    let closed_loop = |streams| LoadMode::Closed { connections: 1, streams };
    let imported_hashes =
        calls_that_may_fail("Login, imported hashes", LOGIN, sign_in_all(&noisy.imported_password));
    let wrong_passwords =
        calls_that_may_fail("Login, wrong passwords", LOGIN, sign_in_all("a wrong password"));
    let cancelled_sign_ins =
        calls_that_may_fail("Login, cancelled", LOGIN, sign_in_all("another wrong password"))
            .cancel_after(CANCEL_AFTER);
    let batches = vec![with_token(noisy, &largest_batch(noisy))];
    let batches = calls_that_may_fail(
        "BatchCheck, largest",
        "/tenantry.v1.PermissionService/BatchCheck",
        batches,
    );
    let writes = vec![
        with_token(noisy, &update_role_without(noisy, 0)),
        with_token(noisy, &update_role_without(noisy, 1)),
    ];
    let writes =
        calls_that_may_fail("UpdateRole, largest", "/tenantry.v1.RoleService/UpdateRole", writes);
    let filter = r#"display_name = "nobody*""#.to_owned();
    let search = ListUsersRequest { filter, page_size: 1000, ..ListUsersRequest::default() };
    let searches = vec![with_token(noisy, &search)];
    let searches =
        calls_that_may_fail("ListUsers, search", "/tenantry.v1.UserService/ListUsers", searches);
    vec![
        (imported_hashes, closed_loop(8)),
        (wrong_passwords, closed_loop(4)),
        (cancelled_sign_ins, closed_loop(4)),
        (batches, closed_loop(2)),
        (writes, closed_loop(30)),
        (searches, closed_loop(2)),
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

/// A batch with the largest allowed number of questions. For each question, the server compares
/// every value of every scope of the subject.
fn largest_batch(noisy: &NoisyTenant) -> BatchCheckRequest {
    let item = BatchCheckItem {
        user_id: noisy.subject.clone(),
        permission: noisy::PERMISSION.to_owned(),
        scope: Some(noisy.almost_matching_scope.clone()),
        ..BatchCheckItem::default()
    };
    BatchCheckRequest { items: vec![item; 1000], ..BatchCheckRequest::default() }
}

/// Request that removes one permission from the largest role. Concurrent requests wait for the lock
/// on the role's row.
fn update_role_without(noisy: &NoisyTenant, permission: usize) -> UpdateRoleRequest {
    let mut permissions = noisy.permissions.clone();
    permissions.remove(permission);
    UpdateRoleRequest { role_id: noisy.role.clone(), permissions, ..UpdateRoleRequest::default() }
}

/// Calls for which every response is expected, also an error. After an error, the client pauses.
fn calls_that_may_fail(name: &'static str, path: &'static str, requests: Vec<Request>) -> Calls {
    Calls::new(name, path, requests, |result| match result {
        Ok(_) => Verdict::Good,
        Err(_) => Verdict::Refused(PAUSE),
    })
}
