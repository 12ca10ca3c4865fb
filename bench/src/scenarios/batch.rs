//! Cost of a `BatchCheck` of a hundred questions, against a `Check`.

use super::{Bench, USERS, requests};
use crate::{
    load::Pace,
    report::{Figure, Target},
    world::shape::Shape,
};

/// Number of questions in a batch.
const BATCH: u64 = 100;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let shape = Shape { users: USERS };
    let tokens = bench.world.subjects_tokens(USERS)?;
    let askers = bench.world.askers_tokens(USERS)?;
    let check = requests::check_self(shape, &tokens, 0);
    let own = requests::batch_self(&tokens);
    let others = requests::batches(shape, &askers, 0..BATCH * askers.len() as u64, BATCH)
        .named("BatchCheck, 100 subjects");

    for calls in [&check, &others] {
        bench.warm(&server, calls)?;
    }

    let mut by_self =
        Figure::new("BatchCheck of 100 about oneself ÷ Check, CPU", Target::AtMost(3.0));
    let mut by_other = Figure::record("BatchCheck of 100 subjects ÷ Check, CPU");

    for round in 1..=bench.effort.rounds {
        let one = bench.measure(round, &server, &check, Pace::FULL)?;
        let many = bench.measure(round, &server, &own, Pace::FULL)?;
        let subjects = bench.measure(round, &server, &others, Pace::FULL)?;

        by_self.push(many.cpu_micros / one.cpu_micros);
        by_other.push(subjects.cpu_micros / one.cpu_micros);
    }
    bench.report.add([by_self, by_other]);
    Ok(())
}
