//! Additional cost of a decision compared with an empty call on the same server, and of the server
//! compared with gRPC itself.

use super::{Bench, USERS, requests};
use crate::{
    load::Pace,
    report::{Figure, Target},
    world::shape::Shape,
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let bare = bench.world.serve_bare()?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let health = requests::health();
    let on_bare = requests::health().named("health, bare server");
    let with_token = requests::health_with(&tokens);
    let check = requests::check_self(Shape { users: USERS }, &tokens, 0);

    bench.warm(&server, &check)?;

    let mut bare_server = Figure::new("health ÷ a bare server's, calls/s", Target::AtLeast(0.95));
    let mut bare_cost = Figure::record("health ÷ a bare server's, server CPU");
    let mut to_token = Figure::new("Check ÷ health with a token, calls/s", Target::AtLeast(0.90));
    let mut to_health = Figure::new("Check ÷ health, calls/s", Target::AtLeast(0.65));
    let mut cpu_token = Figure::record("health with a token ÷ Check, server CPU");
    let mut cpu_health = Figure::record("health ÷ Check, server CPU");
    let mut difference =
        Figure::new("Check − health with a token, server CPU µs", Target::AtMost(3.0));

    for round in 1..=bench.effort.rounds {
        let health_run = bench.measure(round, &server, &health, Pace::FULL)?;
        let bare_run = bench.measure(round, &bare, &on_bare, Pace::FULL)?;
        let token_run = bench.measure(round, &server, &with_token, Pace::FULL)?;
        let check_run = bench.measure(round, &server, &check, Pace::FULL)?;

        bare_server.ratio_of_rates(&health_run, &bare_run);
        bare_cost.push(health_run.cpu_micros / bare_run.cpu_micros);
        to_token.ratio_of_rates(&check_run, &token_run);
        to_health.ratio_of_rates(&check_run, &health_run);
        cpu_token.push(token_run.cpu_micros / check_run.cpu_micros);
        cpu_health.push(health_run.cpu_micros / check_run.cpu_micros);
        difference.push(check_run.cpu_micros - token_run.cpu_micros);
    }
    let figures = [to_token, cpu_token, to_health, cpu_health, difference, bare_server, bare_cost];
    bench.report.add(figures);
    Ok(())
}
