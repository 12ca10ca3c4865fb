//! CPU cost of a sign-in, compared with its necessary parts: the password hash, two signatures and
//! a commit.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    report::{Figure, Target},
    world::shape::Shape,
};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let sign_in = requests::sign_in(Shape { users: USERS });
    bench.warm(&server, &sign_in)?;

    let mut cost =
        Figure::new("sign-in ÷ argon2, two signatures and a commit, CPU", Target::AtMost(1.05));
    let mut total = Figure::record("sign-in, CPU, µs");
    let mut floor = Figure::record("argon2, two signatures and a commit, CPU, µs");
    let mut statement_count = Figure::record("statements for a sign-in");

    for round in 1..=bench.effort.rounds {
        let least = bench.world.floor(USERS)?;
        let (run_of_sign_ins, statements) =
            bench.once(round, &server, &sign_in.again(), ONE_BY_ONE)?;
        let least = least.hash + least.signatures + least.commit;
        cost.push(run_of_sign_ins.cpu_micros / least);
        total.push(run_of_sign_ins.cpu_micros);
        floor.push(least);
        statement_count.push(statements / crate::number(run_of_sign_ins.calls));
    }
    bench.report.add([cost, total, floor, statement_count]);
    Ok(())
}
