//! Cost of a decision compared with an empty call (a health check) on the same server, and cost of
//! the server compared with gRPC itself (a health check on a minimal server).

use super::{Bench, USERS, requests};
use crate::{
    load::LoadMode,
    report::{ScenarioResult, Target},
    world::shape::{FIRST_SESSION, Shape},
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let bare = bench.world.start_bare_server()?;
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let health = requests::health();
    let bare_health = requests::health().with_name("health, bare server");
    let token_health = requests::health_with_tokens(&tokens);
    let check = requests::check_self(Shape { users: USERS }, &tokens, FIRST_SESSION);

    bench.warm_up(&server, &check)?;

    let mut rate_to_bare =
        ScenarioResult::new("health ÷ health on a bare server, calls/s", Target::AtLeast(0.95));
    let mut cpu_to_bare =
        ScenarioResult::without_target("health ÷ health on a bare server, server CPU");
    let mut rate_to_token =
        ScenarioResult::new("Check ÷ health with a token, calls/s", Target::AtLeast(0.90));
    let mut rate_to_health = ScenarioResult::new("Check ÷ health, calls/s", Target::AtLeast(0.65));
    let mut cpu_to_token =
        ScenarioResult::without_target("health with a token ÷ Check, server CPU");
    let mut cpu_to_health = ScenarioResult::without_target("health ÷ Check, server CPU");
    let mut difference =
        ScenarioResult::new("Check − health with a token, server CPU µs", Target::AtMost(3.0));

    for round in 1..=bench.effort.rounds {
        let health_run = bench.measure(round, &server, &health, LoadMode::FULL)?;
        let bare_run = bench.measure(round, &bare, &bare_health, LoadMode::FULL)?;
        let token_run = bench.measure(round, &server, &token_health, LoadMode::FULL)?;
        let check_run = bench.measure(round, &server, &check, LoadMode::FULL)?;

        rate_to_bare.push_ratio_of_rates(&health_run, &bare_run);
        cpu_to_bare.push(health_run.cpu_micros / bare_run.cpu_micros);
        rate_to_token.push_ratio_of_rates(&check_run, &token_run);
        rate_to_health.push_ratio_of_rates(&check_run, &health_run);
        cpu_to_token.push(token_run.cpu_micros / check_run.cpu_micros);
        cpu_to_health.push(health_run.cpu_micros / check_run.cpu_micros);
        difference.push(check_run.cpu_micros - token_run.cpu_micros);
    }
    let results = [
        rate_to_token,
        cpu_to_token,
        rate_to_health,
        cpu_to_health,
        difference,
        rate_to_bare,
        cpu_to_bare,
    ];
    bench.report.add_results(results);
    Ok(())
}
