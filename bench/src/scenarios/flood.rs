//! Effect of a flood of sign-ins on decisions. Password hashing shares the server's core with
//! decisions, and more sign-ins are in flight than the hashing queue has slots.

use anyhow::ensure;

use super::{Bench, USERS, requests};
use crate::{
    load::{Load, LoadMode},
    report::{ScenarioResult, Target},
    world::shape::{FIRST_SESSION, Shape},
};

/// 512 sign-ins in flight: four times the queue's default length, so the queue is always full.
const FLOOD: LoadMode = LoadMode::Closed { connections: 8, streams: 64 };

/// Rate of decisions, as a fraction of the server's highest rate.
const RATE_FRACTION: f64 = 0.25;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, FIRST_SESSION);
    let without_flood = check.clone().with_name("Check, no sign-ins");
    let during_flood = check.clone().with_name("Check, during a flood");
    let sign_in = requests::sign_in(Shape { users: USERS });

    bench.warm_up(&server, &check)?;

    let mut tail = ScenarioResult::new(
        "Check during a flood of sign-ins ÷ without it, p99",
        Target::AtMost(2.0),
    );
    let mut median =
        ScenarioResult::without_target("Check during a flood of sign-ins ÷ without it, p50");
    let mut successful_rate =
        ScenarioResult::without_target("successful sign-ins during the flood, calls/s");
    let mut refused_rate =
        ScenarioResult::without_target("sign-ins refused during the flood, calls/s");

    for round in 1..=bench.effort.rounds {
        let full_run = bench.measure(round, &server, &check, LoadMode::FULL)?;
        let mode = LoadMode::Open { rate: full_run.per_second * RATE_FRACTION };
        let quiet_run = bench.measure(round, &server, &without_flood, mode)?;
        let loads = [
            Load { calls: &during_flood, addr: server.addr, mode },
            Load { calls: &sign_in, addr: server.addr, mode: FLOOD },
        ];
        let [check_run, sign_in_run] = &bench.measure_all(round, &server, &loads)?[..] else {
            anyhow::bail!("two loads must have two measurements")
        };
        ensure!(sign_in_run.refused > 0, "the hashing queue was never full");

        tail.push(check_run.p99 / quiet_run.p99);
        median.push(check_run.p50 / quiet_run.p50);
        successful_rate.push(sign_in_run.per_second);
        refused_rate.push(crate::to_f64(sign_in_run.refused) / sign_in_run.seconds);
    }
    bench.report.add_results([tail, median, successful_rate, refused_rate]);
    Ok(())
}
