//! Tail latency of decisions compared with empty calls (health checks), at half of the server's
//! highest rate. The highest rate comes from a closed loop, in which one wake-up of the server
//! serves many calls. Calls that arrive one by one cost twice as much. So the scenario also
//! measures at a quarter of the rate, where neither kind of call uses the whole core.

use super::{Bench, USERS, requests};
use crate::{
    load::LoadMode,
    report::{ScenarioResult, Target},
    world::shape::{FIRST_SESSION, Shape},
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let health = requests::health();
    let token_health = requests::health_with_tokens(&tokens);
    let check = requests::check_self(Shape { users: USERS }, &tokens, FIRST_SESSION);

    bench.warm_up(&server, &check)?;

    let mut health_ratio =
        ScenarioResult::new("Check ÷ health at half load, p99", Target::AtMost(1.3));
    let mut token_ratio =
        ScenarioResult::without_target("Check ÷ health with a token at half load, p99");
    let mut median = ScenarioResult::without_target("Check ÷ health at half load, p50");
    let mut quarter_tail = ScenarioResult::without_target("Check ÷ health at a quarter load, p99");
    let (quarter_health, quarter_check) = (
        health.clone().with_name("health, quarter load"),
        check.clone().with_name("Check, quarter load"),
    );

    for round in 1..=bench.effort.rounds {
        let full_run = bench.measure(round, &server, &check, LoadMode::FULL)?;
        let half_load_mode = LoadMode::Open { rate: full_run.per_second / 2.0 };
        let health_run = bench.measure(round, &server, &health, half_load_mode)?;
        let token_run = bench.measure(round, &server, &token_health, half_load_mode)?;
        let check_run = bench.measure(round, &server, &check, half_load_mode)?;

        health_ratio.push(check_run.p99 / health_run.p99);
        token_ratio.push(check_run.p99 / token_run.p99);
        median.push(check_run.p50 / health_run.p50);

        let quarter_load_mode = LoadMode::Open { rate: full_run.per_second / 4.0 };
        let health_run = bench.measure(round, &server, &quarter_health, quarter_load_mode)?;
        let check_run = bench.measure(round, &server, &quarter_check, quarter_load_mode)?;
        quarter_tail.push(check_run.p99 / health_run.p99);
    }
    bench.report.add_results([health_ratio, token_ratio, median, quarter_tail]);
    Ok(())
}
