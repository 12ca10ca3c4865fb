//! CPU cost of a sign-in, compared with its minimum cost: one password hash, two signatures and a
//! commit.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    report::{ScenarioResult, Target},
    world::shape::Shape,
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let sign_in = requests::sign_in(Shape { users: USERS });
    bench.warm_up(&server, &sign_in)?;

    let mut ratio = ScenarioResult::new(
        "sign-in ÷ argon2, two signatures and a commit, CPU",
        Target::AtMost(1.05),
    );
    let mut total = ScenarioResult::without_target("sign-in, CPU, µs");
    let mut minimum =
        ScenarioResult::without_target("argon2, two signatures and a commit, CPU, µs");
    let mut statement_count = ScenarioResult::without_target("statements per sign-in");

    for round in 1..=bench.effort.rounds {
        let parts = bench.world.minimum_cost(USERS)?;
        let (sign_in_run, statements) =
            bench.send_each_once(round, &server, &sign_in.copy_at_start(), ONE_BY_ONE)?;
        let minimum_cost = parts.hash + parts.signatures + parts.commit;
        ratio.push(sign_in_run.cpu_micros / minimum_cost);
        total.push(sign_in_run.cpu_micros);
        minimum.push(minimum_cost);
        statement_count.push(statements / crate::to_f64(sign_in_run.good_calls));
    }
    bench.report.add_results([ratio, total, minimum, statement_count]);
    Ok(())
}
