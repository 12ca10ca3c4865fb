//! CPU cost of a refresh, compared with its minimum cost: two signatures and a commit. The cost
//! is measured with many refreshes in flight, and with one refresh at a time. The latter cost
//! includes the wake-ups of an idle server.

use super::{Bench, CONCURRENT, ONE_BY_ONE, USERS, requests};
use crate::report::{ScenarioResult, Target};

/// Number of refreshes of each kind in a round. A refresh token works only once, so each round
/// uses the next sessions.
const REFRESHES: u64 = 300;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let mut ratio =
        ScenarioResult::new("refresh ÷ two signatures and a commit, CPU", Target::AtMost(1.25));
    let mut total = ScenarioResult::without_target("refresh, CPU, µs");
    let mut sequential = ScenarioResult::without_target("refresh, one after the other, CPU, µs");
    let mut minimum = ScenarioResult::without_target("two signatures and a commit, CPU, µs");
    let mut statement_count = ScenarioResult::without_target("statements per refresh");

    let mut next_session = 0;
    for round in 1..=bench.effort.rounds {
        let parts = bench.world.minimum_cost(USERS)?;
        let minimum_cost = parts.signatures + parts.commit;
        let mut refresh = |mode| {
            let tokens =
                bench.world.refresh_tokens(USERS, next_session..next_session + REFRESHES)?;
            next_session += REFRESHES;
            bench.send_each_once(round, &server, &requests::refresh(&tokens), mode)
        };
        let (sequential_run, _) = refresh(ONE_BY_ONE)?;
        let (concurrent_run, statements) = refresh(CONCURRENT)?;
        ratio.push(concurrent_run.cpu_micros / minimum_cost);
        total.push(concurrent_run.cpu_micros);
        sequential.push(sequential_run.cpu_micros);
        minimum.push(minimum_cost);
        statement_count.push(statements / crate::to_f64(concurrent_run.good_calls));
    }
    bench.report.add_results([ratio, total, sequential, minimum, statement_count]);
    Ok(())
}
