//! CPU cost of a refresh, compared with its necessary parts: two signatures and a commit. Measured
//! with many refreshes in flight, and with one refresh at a time, where the cost includes the
//! wake-ups of an idle server.

use super::{Bench, ONE_BY_ONE, USERS, WIDE, requests};
use crate::report::{Figure, Target};

/// Number of refreshes of each kind in a round. A refresh token works only once, so each round
/// uses the next sessions.
const REFRESHES: u64 = 300;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let mut cost = Figure::new("refresh ÷ two signatures and a commit, CPU", Target::AtMost(1.25));
    let mut total = Figure::record("refresh, CPU, µs");
    let mut sequential = Figure::record("refresh, one after the other, CPU, µs");
    let mut floor = Figure::record("two signatures and a commit, CPU, µs");
    let mut statement_count = Figure::record("statements for a refresh");

    let mut next_session = 0;
    for round in 1..=bench.effort.rounds {
        let necessary = bench.world.floor(USERS)?;
        let necessary = necessary.signatures + necessary.commit;
        let mut refresh = |pace| {
            let tokens =
                bench.world.refresh_tokens(USERS, next_session..next_session + REFRESHES)?;
            next_session += REFRESHES;
            bench.once(round, &server, &requests::refresh(&tokens), pace)
        };
        let (sequential_run, _) = refresh(ONE_BY_ONE)?;
        let (concurrent_run, statements) = refresh(WIDE)?;
        cost.push(concurrent_run.cpu_micros / necessary);
        total.push(concurrent_run.cpu_micros);
        sequential.push(sequential_run.cpu_micros);
        floor.push(necessary);
        statement_count.push(statements / crate::number(concurrent_run.calls));
    }
    bench.report.add([cost, total, sequential, floor, statement_count]);
    Ok(())
}
