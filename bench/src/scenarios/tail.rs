//! Tail latency of decisions compared with empty calls, at half of the server's highest rate. A
//! closed loop measures the highest rate, with many calls for each wake-up of the server. Calls
//! that arrive one by one cost twice as much, so the scenario also measures at a quarter of the
//! rate, where neither kind of call uses the whole core.

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
    let mut median = Figure::record("Check ÷ health at half load, p50");
    let mut quarter_tail = Figure::record("Check ÷ health at a quarter of the load, p99");
    let (quarter_health, quarter_check) =
        (health.clone().named("health, quarter"), check.clone().named("Check, quarter"));

    for round in 1..=bench.effort.rounds {
        let full_rate = bench.measure(round, &server, &check, Pace::FULL)?;
        let half = Pace::Open { rate: full_rate.per_second / 2.0 };
        let health_run = bench.measure(round, &server, &health, half)?;
        let token_run = bench.measure(round, &server, &with_token, half)?;
        let check_run = bench.measure(round, &server, &check, half)?;

        to_health.push(check_run.p99 / health_run.p99);
        to_token.push(check_run.p99 / token_run.p99);
        median.push(check_run.p50 / health_run.p50);

        let quarter = Pace::Open { rate: full_rate.per_second / 4.0 };
        let health_run = bench.measure(round, &server, &quarter_health, quarter)?;
        let check_run = bench.measure(round, &server, &quarter_check, quarter)?;
        quarter_tail.push(check_run.p99 / health_run.p99);
    }
    bench.report.add([to_health, to_token, median, quarter_tail]);
    Ok(())
}
