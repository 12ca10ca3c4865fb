//! Cost of a decision about a subject that is not in memory.

use std::iter::repeat_n;

use super::{Bench, ONE_BY_ONE, USERS, WIDE, requests};
use crate::{
    report::{Figure, Target},
    world::shape::{SESSIONS, Shape},
};

/// Number of subjects in a measurement.
const SUBJECTS: u64 = 1_000;

/// Calls that ask about the same cold subject at once: as many as [`WIDE`] keeps in flight.
const AT_ONCE: u64 = 64;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let shape = Shape { users: USERS };
    let askers = bench.world.askers_tokens(USERS)?;
    let tokens = bench.world.subjects_tokens(USERS)?;
    let per_round = usize::try_from(SUBJECTS)?;
    let mut tokens = tokens.chunks(per_round).zip((0..).step_by(per_round));
    // The subjects with sessions come first. Later ones have none and are never in memory.
    let mut strangers = SESSIONS..;
    let mut about = |count, calls_each| {
        let subjects = strangers.by_ref().take(count);
        let asked = subjects.flat_map(|subject| repeat_n(subject, calls_each));
        requests::check_about(shape, &askers, asked.collect())
    };

    bench.warm(&server, &about(per_round, 1))?;

    let mut one = Figure::new("Postgres queries for a cold subject", Target::Exactly(1.0));
    let mut both =
        Figure::new("Postgres queries for a cold token and subject", Target::Exactly(1.0));
    let mut shared =
        Figure::new("Postgres queries for 64 calls about a cold subject", Target::Exactly(1.0));
    let mut none = Figure::new("Postgres queries for a warm subject", Target::Exactly(0.0));
    let mut middle = Figure::record("Check of a cold subject, one at a time, p50 µs");
    let mut tail = Figure::record("Check of a cold subject, one at a time, p99 µs");

    for round in 1..=bench.effort.rounds {
        let cold = about(per_round, 1).named("Check, cold subject");
        let (run, asked) = bench.once(round, &server, &cold, ONE_BY_ONE)?;
        one.push(asked / crate::number(SUBJECTS));
        middle.push(run.p50);
        tail.push(run.p99);

        let warm = cold.again().named("Check, warm subject");
        let (_, asked) = bench.once(round, &server, &warm, ONE_BY_ONE)?;
        none.push(asked / crate::number(SUBJECTS));

        let many = about(per_round, 1).named("Check, cold subject");
        bench.once(round, &server, &many, WIDE)?;

        let same = about(per_round / 10, usize::try_from(AT_ONCE)?);
        let same = same.named("Check, cold subject of 64 calls");
        let (_, asked) = bench.once(round, &server, &same, WIDE)?;
        shared.push(asked / crate::number(SUBJECTS / 10));

        let Some((own, first)) = tokens.next() else { anyhow::bail!("more rounds than tokens") };
        let own = requests::check_self(shape, own, first).named("Check, cold token and subject");
        let (_, asked) = bench.once(round, &server, &own, ONE_BY_ONE)?;
        both.push(asked / crate::number(SUBJECTS));
    }
    bench.report.add([one, both, shared, none, middle, tail]);
    Ok(())
}
