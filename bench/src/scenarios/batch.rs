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
    let checker_tokens = bench.world.askers_tokens(USERS)?;
    let check = requests::check_self(shape, &tokens, 0);
    let batch_of_caller = requests::batch_self(&tokens);
    let batch_of_subjects =
        requests::batches(shape, &checker_tokens, 0..BATCH * checker_tokens.len() as u64, BATCH)
            .named("BatchCheck, 100 subjects");

    for calls in [&check, &batch_of_subjects] {
        bench.warm(&server, calls)?;
    }

    let mut caller_ratio =
        Figure::new("BatchCheck of 100 about oneself ÷ Check, CPU", Target::AtMost(3.0));
    let mut subjects_ratio = Figure::record("BatchCheck of 100 subjects ÷ Check, CPU");

    for round in 1..=bench.effort.rounds {
        let single = bench.measure(round, &server, &check, Pace::FULL)?;
        let caller_batch = bench.measure(round, &server, &batch_of_caller, Pace::FULL)?;
        let subjects_batch = bench.measure(round, &server, &batch_of_subjects, Pace::FULL)?;

        caller_ratio.push(caller_batch.cpu_micros / single.cpu_micros);
        subjects_ratio.push(subjects_batch.cpu_micros / single.cpu_micros);
    }
    bench.report.add([caller_ratio, subjects_ratio]);
    Ok(())
}
