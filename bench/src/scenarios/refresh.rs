//! What a refresh costs the server, against the two signatures and the commit that it
//! can't do without.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::report::{Figure, Target};

/// The refreshes of a round. Each refresh token works once, so each round takes the
/// next sessions.
const REFRESHES: u64 = 300;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let mut cost = Figure::new("refresh ÷ two signatures and a commit, CPU", Target::AtMost(1.25));
    let mut whole = Figure::record("refresh, CPU, µs");
    let mut floor = Figure::record("two signatures and a commit, CPU, µs");
    let mut asked = Figure::record("statements for a refresh");

    for round in 1..=bench.effort.rounds {
        let first = (round - 1) * REFRESHES;
        let tokens = bench.world.refresh_tokens(USERS, first..first + REFRESHES)?;
        let least = bench.world.floor(USERS)?;
        let (refreshed, statements) =
            bench.once(round, &server, &requests::refresh(&tokens), ONE_BY_ONE)?;
        let least = least.signatures + least.commit;
        cost.push(refreshed.cpu_micros / least);
        whole.push(refreshed.cpu_micros);
        floor.push(least);
        asked.push(statements / crate::number(refreshed.calls));
    }
    bench.report.add([cost, whole, floor, asked]);
    Ok(())
}
