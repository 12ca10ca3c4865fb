//! Effect of one tenant's load on another tenant. The noisy tenant, which registered itself, sends
//! the most expensive load that the server allows: sign-ins with the most expensive hashes, wrong
//! passwords, the largest batches about the largest subject, slow writes, searches, and cancelled
//! calls. The scenario measures the decisions and sign-ins of a quiet tenant without and with this
//! load.
//!
//! The noisy tenant repeats a refused call after a pause. Otherwise the benchmark would measure the
//! highest rate of refusals.

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
const RATE_SHARE: f64 = 0.1;

/// Pace of the quiet tenant's sign-ins: two in flight, which keep both hashing threads busy.
const SIGN_INS: Pace = Pace::Closed { connections: 1, streams: 2 };

/// Number of loads at the start of [`all_loads`] that use Postgres no more than sign-ins do.
const WITHOUT_POSTGRES: usize = 4;

/// Pause of the noisy tenant after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// Timeout after which the noisy tenant cancels a call.
const CANCEL_AFTER: Duration = Duration::from_millis(5);

/// Number of client addresses of a flood (G02).
const ADDRESSES: u32 = 1000;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let noisy = bench.world.noisy_tenant(&server)?;
    measure_all_loads(bench, &server, &noisy)?;
    drop(server);
    measure_sign_in_flood(bench, &noisy)
}

fn measure_all_loads(
    bench: &mut Bench,
    server: &Server,
    noisy: &NoisyTenant,
) -> anyhow::Result<()> {
    let tokens = bench.world.subjects_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);
    let sign_in = requests::sign_in(Shape { users: USERS });
    let named_calls = |check_name, sign_in_name| {
        (check.clone().named(check_name), sign_in.clone().named(sign_in_name))
    };
    let quiet_calls = named_calls("Check, quiet", "Login, quiet");
    let beside_some = named_calls("Check, beside its sign-ins", "Login, beside its sign-ins");
    let beside_all = named_calls("Check, beside the worst", "Login, beside the worst");
    let loads_of_noisy = all_loads(noisy);
    bench.warm(server, &check)?;

    let mut tail = Figure::new("Check beside the worst ÷ quiet, p99", Target::AtMost(2.0));
    let mut middle = Figure::record("Check beside the worst ÷ quiet, p50");
    let mut share =
        Figure::new("sign-ins beside the worst ÷ their fair share", Target::AtLeast(0.9));
    let mut less_tail = Figure::record("Check beside its sign-ins and batches ÷ quiet, p99");
    let mut less_share = Figure::record("sign-ins beside its sign-ins and batches ÷ fair share");
    let mut refused = Figure::new("the other tenant's refused calls", Target::Exactly(0.0));
    let mut accepted = Figure::record("the noisy tenant's calls that were served, calls/s");

    for round in 1..=bench.effort.rounds {
        let full_rate = bench.measure(round, server, &check, Pace::FULL)?;
        let pace = Pace::Open { rate: full_rate.per_second * RATE_SHARE };
        let mut measure = |(check, sign_in), loads: &[(Calls, Pace)]| {
            let addr = server.addr;
            let mut parts = vec![
                Part { calls: check, addr, pace },
                Part { calls: sign_in, addr, pace: SIGN_INS },
            ];
            parts.extend(loads.iter().map(|(calls, pace)| Part { calls, addr, pace: *pace }));
            bench.measure_all(round, server, &parts)
        };
        let quiet = measure((&quiet_calls.0, &quiet_calls.1), &[])?;
        let some_run =
            measure((&beside_some.0, &beside_some.1), &loads_of_noisy[..WITHOUT_POSTGRES])?;
        let loaded = measure((&beside_all.0, &beside_all.1), &loads_of_noisy)?;

        tail.push(loaded[0].p99 / quiet[0].p99);
        middle.push(loaded[0].p50 / quiet[0].p50);
        // Two tenants sign in, so the fair share of each tenant is half.
        share.push(loaded[1].per_second / (quiet[1].per_second / 2.0));
        less_tail.push(some_run[0].p99 / quiet[0].p99);
        less_share.push(some_run[1].per_second / (quiet[1].per_second / 2.0));
        refused.push(crate::number(loaded[0].refused + loaded[1].refused));
        accepted.push(loaded[2..].iter().map(|run| run.per_second).sum());
    }
    bench.report.add([tail, middle, share, less_tail, less_share, refused, accepted]);
    Ok(())
}

/// Measures decisions during a flood of one tenant's sign-ins from very many addresses, above
/// the tenant's rate limit (G02).
fn measure_sign_in_flood(bench: &mut Bench, noisy: &NoisyTenant) -> anyhow::Result<()> {
    let settings = [("RATE_LIMIT_SIGN_IN", "20/1m,60/1m"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = bench.world.serve(USERS, &settings)?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);
    let (quiet_calls, during_flood) =
        (check.clone().named("Check, no flood"), check.clone().named("Check, beside a flood"));
    let flood = flood(noisy);
    bench.warm(&server, &check)?;

    let mut tail = Figure::new(
        "Check beside a flood from 1,000 addresses ÷ without, p99",
        Target::AtMost(1.1),
    );
    let mut limited = Figure::record("sign-ins of the flood that were refused, share");
    for round in 1..=bench.effort.rounds {
        let full_rate = bench.measure(round, &server, &check, Pace::FULL)?;
        let pace = Pace::Open { rate: full_rate.per_second * RATE_SHARE };
        let quiet = bench.measure(round, &server, &quiet_calls, pace)?;
        let parts = [
            Part { calls: &during_flood, addr: server.addr, pace },
            Part { calls: &flood, addr: server.addr, pace: Pace::Open { rate: 100.0 } },
        ];
        let loaded = bench.measure_all(round, &server, &parts)?;
        tail.push(loaded[0].p99 / quiet.p99);
        let all = crate::number(loaded[1].refused + loaded[1].calls).max(1.0);
        limited.push(crate::number(loaded[1].refused) / all);
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
fn all_loads(noisy: &NoisyTenant) -> Vec<(Calls, Pace)> {
    const LOGIN: &str = "/tenantry.v1.AuthService/Login";
    let each = |password: &str| -> Vec<Request> {
        noisy.imported.iter().map(|email| sign_in(noisy, email.clone(), password)).collect()
    };
    let streams = |streams| Pace::Closed { connections: 1, streams };
    let imported_hashes = calls("Login, imported hashes", LOGIN, each(&noisy.imported_password));
    let wrong = calls("Login, wrong passwords", LOGIN, each("a wrong password"));
    let cancelled = calls("Login, given up", LOGIN, each("another wrong password"))
        .cancelled_after(CANCEL_AFTER);
    let batches = vec![with_token(noisy, &batch(noisy))];
    let batches =
        calls("BatchCheck, largest", "/tenantry.v1.PermissionService/BatchCheck", batches);
    let writes = vec![
        with_token(noisy, &update_role_without(noisy, 0)),
        with_token(noisy, &update_role_without(noisy, 1)),
    ];
    let writes = calls("UpdateRole, largest", "/tenantry.v1.RoleService/UpdateRole", writes);
    let filter = r#"display_name = "nobody*""#.to_owned();
    let search = ListUsersRequest { filter, page_size: 1000, ..ListUsersRequest::default() };
    let searches = vec![with_token(noisy, &search)];
    let searches = calls("ListUsers, search", "/tenantry.v1.UserService/ListUsers", searches);
    vec![
        (imported_hashes, streams(8)),
        (wrong, streams(4)),
        (cancelled, streams(4)),
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

/// A batch with the largest allowed number of questions. For each question, the server compares
/// every value of every scope of the subject.
fn batch(noisy: &NoisyTenant) -> BatchCheckRequest {
    let item = BatchCheckItem {
        user_id: noisy.subject.clone(),
        permission: noisy::PERMISSION.to_owned(),
        scope: Some(noisy.nearly.clone()),
        ..BatchCheckItem::default()
    };
    BatchCheckRequest { items: vec![item; 1000], ..BatchCheckRequest::default() }
}

/// Request that changes the largest role. All callers wait for the lock on the role's row.
fn update_role_without(noisy: &NoisyTenant, left_out: usize) -> UpdateRoleRequest {
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
