//! CPU cost of a refresh, against its necessary parts: two signatures and a commit. It is
//! measured with many refreshes in flight, and with one at a time, where an idle server pays
//! for waking up after each wait.

use super::{Bench, ONE_BY_ONE, USERS, WIDE, requests};
use crate::report::{Figure, Target};

/// Number of refreshes of each kind in a round. A refresh token works only once, so each round
/// uses the next sessions.
const REFRESHES: u64 = 300;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let mut cost = Figure::new("refresh ÷ two signatures and a commit, CPU", Target::AtMost(1.25));
    let mut whole = Figure::record("refresh, CPU, µs");
    let mut alone = Figure::record("refresh, one after the other, CPU, µs");
    let mut floor = Figure::record("two signatures and a commit, CPU, µs");
    let mut asked = Figure::record("statements for a refresh");

    let mut next = 0;
    for round in 1..=bench.effort.rounds {
        let least = bench.world.floor(USERS)?;
        let least = least.signatures + least.commit;
        let mut refresh = |pace| {
            let tokens = bench.world.refresh_tokens(USERS, next..next + REFRESHES)?;
            next += REFRESHES;
            bench.once(round, &server, &requests::refresh(&tokens), pace)
        };
        let (singly, _) = refresh(ONE_BY_ONE)?;
        let (refreshed, statements) = refresh(WIDE)?;
        cost.push(refreshed.cpu_micros / least);
        whole.push(refreshed.cpu_micros);
        alone.push(singly.cpu_micros);
        floor.push(least);
        asked.push(statements / crate::number(refreshed.calls));
    }
    bench.report.add([cost, whole, alone, floor, asked]);
    Ok(())
}
