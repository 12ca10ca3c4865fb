//! Latency of the slowest decisions against that of an empty call, at half of the server's
//! highest rate. A closed loop measures that rate, with many calls for each wake-up of the
//! server. Calls that arrive one by one cost twice as much, so the same is also measured at a
//! quarter, where neither kind of call fills the core.

use super::{Bench, USERS, requests};
use crate::{
    load::Pace,
    report::{Figure, Target},
    world::shape::Shape,
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let health = requests::health();
    let with_token = requests::health_with(&tokens);
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);

    bench.warm(&server, &check)?;

    let mut to_health = Figure::new("Check ÷ health at half load, p99", Target::AtMost(1.3));
    let mut to_token = Figure::record("Check ÷ health with a token at half load, p99");
    let mut middle = Figure::record("Check ÷ health at half load, p50");
    let mut calm = Figure::record("Check ÷ health at a quarter of the load, p99");
    let (calm_health, calm_check) =
        (health.clone().named("health, quarter"), check.clone().named("Check, quarter"));

    for round in 1..=bench.effort.rounds {
        let most = bench.measure(round, &server, &check, Pace::FULL)?;
        let half = Pace::Open { rate: most.per_second / 2.0 };
        let plain = bench.measure(round, &server, &health, half)?;
        let empty = bench.measure(round, &server, &with_token, half)?;
        let decided = bench.measure(round, &server, &check, half)?;

        to_health.push(decided.p99 / plain.p99);
        to_token.push(decided.p99 / empty.p99);
        middle.push(decided.p50 / plain.p50);

        let quarter = Pace::Open { rate: most.per_second / 4.0 };
        let plain = bench.measure(round, &server, &calm_health, quarter)?;
        let decided = bench.measure(round, &server, &calm_check, quarter)?;
        calm.push(decided.p99 / plain.p99);
    }
    bench.report.add([to_health, to_token, middle, calm]);
    Ok(())
}
