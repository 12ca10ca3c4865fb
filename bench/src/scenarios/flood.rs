//! Effect of a flood of sign-ins on decisions. Password hashing shares the server's core with
//! decisions, and more sign-ins are in flight than the hashing queue can hold.

use anyhow::ensure;

use super::{Bench, USERS, requests};
use crate::{
    load::{Pace, Part},
    report::{Figure, Target},
    world::shape::Shape,
};

/// Four times the queue's default length, so the queue is always full.
const FLOOD: Pace = Pace::Closed { connections: 8, streams: 64 };

/// Rate of decisions, as a share of the server's highest rate.
const RATE_SHARE: f64 = 0.25;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);
    let without_flood = check.clone().named("Check, no sign-ins");
    let during_flood = check.clone().named("Check, during a flood");
    let sign_in = requests::sign_in(Shape { users: USERS });

    bench.warm(&server, &check)?;

    let mut tail = Figure::new("Check in a flood of sign-ins ÷ without, p99", Target::AtMost(2.0));
    let mut median = Figure::record("Check in a flood of sign-ins ÷ without, p50");
    let mut signed_in = Figure::record("sign-ins during the flood, calls/s");
    let mut refused = Figure::record("sign-ins refused during the flood, calls/s");

    for round in 1..=bench.effort.rounds {
        let full_rate = bench.measure(round, &server, &check, Pace::FULL)?;
        let pace = Pace::Open { rate: full_rate.per_second * RATE_SHARE };
        let quiet_run = bench.measure(round, &server, &without_flood, pace)?;
        let parts = [
            Part { calls: &during_flood, addr: server.addr, pace },
            Part { calls: &sign_in, addr: server.addr, pace: FLOOD },
        ];
        let [flooded_run, flood] = &bench.measure_all(round, &server, &parts)?[..] else {
            anyhow::bail!("two parts have two results")
        };
        ensure!(flood.refused > 0, "the hashing queue was never full");

        tail.push(flooded_run.p99 / quiet_run.p99);
        median.push(flooded_run.p50 / quiet_run.p50);
        signed_in.push(flood.per_second);
        refused.push(crate::number(flood.refused) / flood.seconds);
    }
    bench.report.add([tail, median, signed_in, refused]);
    Ok(())
}
