//! Cost of a decision about a subject that is not in the cache.

use std::iter::repeat_n;

use super::{Bench, ONE_BY_ONE, USERS, WIDE, requests};
use crate::{
    report::{Figure, Target},
    world::shape::{SESSIONS, Shape},
};

/// Number of subjects in a measurement.
const SUBJECTS: u64 = 1_000;

/// Number of concurrent calls about the same cold subject. Equal to the calls in flight of
/// [`WIDE`].
const AT_ONCE: u64 = 64;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let shape = Shape { users: USERS };
    let checker_tokens = bench.world.askers_tokens(USERS)?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let per_round = usize::try_from(SUBJECTS)?;
    let mut tokens = tokens.chunks(per_round).zip((0..).step_by(per_round));
    // The first subjects have sessions. Later subjects have no session and are never cached.
    let mut uncached_subjects = SESSIONS..;
    let mut check_next = |count, calls_each| {
        let subjects = uncached_subjects.by_ref().take(count);
        let asked = subjects.flat_map(|subject| repeat_n(subject, calls_each));
        requests::check_about(shape, &checker_tokens, asked.collect())
    };

    bench.warm(&server, &check_next(per_round, 1))?;

    let mut subject_queries =
        Figure::new("Postgres queries for a cold subject", Target::Exactly(1.0));
    let mut token_and_subject_queries =
        Figure::new("Postgres queries for a cold token and subject", Target::Exactly(1.0));
    let mut shared_queries =
        Figure::new("Postgres queries for 64 calls about a cold subject", Target::Exactly(1.0));
    let mut warm_queries = Figure::new("Postgres queries for a warm subject", Target::Exactly(0.0));
    let mut median = Figure::record("Check of a cold subject, one at a time, p50 µs");
    let mut tail = Figure::record("Check of a cold subject, one at a time, p99 µs");

    for round in 1..=bench.effort.rounds {
        let cold = check_next(per_round, 1).named("Check, cold subject");
        let (run, asked) = bench.once(round, &server, &cold, ONE_BY_ONE)?;
        subject_queries.push(asked / crate::number(SUBJECTS));
        median.push(run.p50);
        tail.push(run.p99);

        let warm = cold.again().named("Check, warm subject");
        let (_, asked) = bench.once(round, &server, &warm, ONE_BY_ONE)?;
        warm_queries.push(asked / crate::number(SUBJECTS));

        let wide_calls = check_next(per_round, 1).named("Check, cold subject");
        bench.once(round, &server, &wide_calls, WIDE)?;

        let shared_calls = check_next(per_round / 10, usize::try_from(AT_ONCE)?);
        let shared_calls = shared_calls.named("Check, cold subject of 64 calls");
        let (_, asked) = bench.once(round, &server, &shared_calls, WIDE)?;
        shared_queries.push(asked / crate::number(SUBJECTS / 10));

        let Some((session_tokens, first)) = tokens.next() else {
            anyhow::bail!("more rounds than tokens")
        };
        let token_calls = requests::check_self(shape, session_tokens, first)
            .named("Check, cold token and subject");
        let (_, asked) = bench.once(round, &server, &token_calls, ONE_BY_ONE)?;
        token_and_subject_queries.push(asked / crate::number(SUBJECTS));
    }
    bench.report.add([
        subject_queries,
        token_and_subject_queries,
        shared_queries,
        warm_queries,
        median,
        tail,
    ]);
    Ok(())
}
