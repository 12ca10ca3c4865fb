//! Cost of a decision about a cold subject, that is, a subject that is not in the cache.

use std::iter::repeat_n;

use super::{Bench, CONCURRENT, ONE_BY_ONE, USERS, requests};
use crate::{
    report::{ScenarioResult, Target},
    world::shape::{SESSIONS, Shape},
};

/// Number of subjects in a measurement.
const SUBJECTS: u64 = 1_000;

/// Number of concurrent calls about the same cold subject. It equals the number of calls in flight
/// of [`CONCURRENT`].
const CALLS_PER_SUBJECT: u64 = 64;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let shape = Shape { users: USERS };
    let checker_tokens = bench.world.checker_tokens(USERS)?;
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let subjects_per_round = usize::try_from(SUBJECTS)?;
    // Each round uses the next tokens. A chunk has the number of its first session.
    let mut token_chunks = tokens.chunks(subjects_per_round).zip((0..).step_by(subjects_per_round));
    // Subjects with a number below `SESSIONS` have a session, and are checked below with their
    // tokens. All other subjects are cold until they are checked once.
    let mut cold_subjects = SESSIONS..;
    let mut check_next = |count, calls_each| {
        let subjects = cold_subjects.by_ref().take(count);
        let repeated = subjects.flat_map(|subject| repeat_n(subject, calls_each));
        requests::check_subjects(shape, &checker_tokens, repeated.collect())
    };

    bench.warm_up(&server, &check_next(subjects_per_round, 1))?;

    let mut subject_queries =
        ScenarioResult::new("Postgres queries for a cold subject", Target::Exactly(1.0));
    let mut token_and_subject_queries =
        ScenarioResult::new("Postgres queries for a cold token and subject", Target::Exactly(1.0));
    let mut shared_queries = ScenarioResult::new(
        "Postgres queries for 64 calls about a cold subject",
        Target::Exactly(1.0),
    );
    let mut warm_queries =
        ScenarioResult::new("Postgres queries for a warm subject", Target::Exactly(0.0));
    let mut median =
        ScenarioResult::without_target("Check of a cold subject, one at a time, p50 µs");
    let mut tail = ScenarioResult::without_target("Check of a cold subject, one at a time, p99 µs");

    for round in 1..=bench.effort.rounds {
        let cold = check_next(subjects_per_round, 1).with_name("Check, cold subject");
        let (run, statements) = bench.send_each_once(round, &server, &cold, ONE_BY_ONE)?;
        subject_queries.push(statements / crate::to_f64(SUBJECTS));
        median.push(run.p50);
        tail.push(run.p99);

        let warm = cold.copy_at_start().with_name("Check, warm subject");
        let (_, statements) = bench.send_each_once(round, &server, &warm, ONE_BY_ONE)?;
        warm_queries.push(statements / crate::to_f64(SUBJECTS));

        // This measurement is only recorded: no result uses it.
        let concurrent_calls = check_next(subjects_per_round, 1).with_name("Check, cold subject");
        bench.send_each_once(round, &server, &concurrent_calls, CONCURRENT)?;

        // A tenth of the subjects is enough, because each subject gets 64 calls.
        let shared_calls = check_next(subjects_per_round / 10, usize::try_from(CALLS_PER_SUBJECT)?);
        let shared_calls = shared_calls.with_name("Check, 64 calls per cold subject");
        let (_, statements) = bench.send_each_once(round, &server, &shared_calls, CONCURRENT)?;
        shared_queries.push(statements / crate::to_f64(SUBJECTS / 10));

        let Some((cold_tokens, first_session)) = token_chunks.next() else {
            anyhow::bail!("there are not enough tokens for all rounds")
        };
        let token_calls = requests::check_self(shape, cold_tokens, first_session)
            .with_name("Check, cold token and subject");
        let (_, statements) = bench.send_each_once(round, &server, &token_calls, ONE_BY_ONE)?;
        token_and_subject_queries.push(statements / crate::to_f64(SUBJECTS));
    }
    bench.report.add_results([
        subject_queries,
        token_and_subject_queries,
        shared_queries,
        warm_queries,
        median,
        tail,
    ]);
    Ok(())
}
