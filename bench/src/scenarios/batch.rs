//! Cost of a `BatchCheck` of a hundred questions, compared with a `Check`.

use super::{Bench, USERS, requests};
use crate::{
    load::LoadMode,
    report::{ScenarioResult, Target},
    world::shape::{FIRST_SESSION, Shape},
};

/// Number of questions in a batch.
const BATCH_SIZE: u64 = 100;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let shape = Shape { users: USERS };
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let checker_tokens = bench.world.checker_tokens(USERS)?;
    let check = requests::check_self(shape, &tokens, FIRST_SESSION);
    let batch_of_caller = requests::batch_self(&tokens);
    let batch_of_subjects = requests::batches(
        shape,
        &checker_tokens,
        0..BATCH_SIZE * checker_tokens.len() as u64,
        BATCH_SIZE,
    )
    .with_name("BatchCheck, 100 subjects");

    for calls in [&check, &batch_of_subjects] {
        bench.warm_up(&server, calls)?;
    }

    let mut caller_ratio =
        ScenarioResult::new("BatchCheck of 100 about the caller ÷ Check, CPU", Target::AtMost(3.0));
    let mut subjects_ratio =
        ScenarioResult::without_target("BatchCheck about 100 subjects ÷ Check, CPU");

    for round in 1..=bench.effort.rounds {
        let check_run = bench.measure(round, &server, &check, LoadMode::FULL)?;
        let caller_run = bench.measure(round, &server, &batch_of_caller, LoadMode::FULL)?;
        let subjects_run = bench.measure(round, &server, &batch_of_subjects, LoadMode::FULL)?;

        caller_ratio.push(caller_run.cpu_micros / check_run.cpu_micros);
        subjects_ratio.push(subjects_run.cpu_micros / check_run.cpu_micros);
    }
    bench.report.add_results([caller_ratio, subjects_ratio]);
    Ok(())
}
