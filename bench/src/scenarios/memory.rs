//! Memory that a subject takes in the server.

use anyhow::ensure;

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    load::Calls,
    proc::anonymous_memory,
    report::{Figure, Target},
    world::{server::Server, shape::Shape},
};

/// One in this many of the subjects, and of the tokens, is used before the measurement. What
/// the server allocates only once is then not counted.
const FIRST: u64 = 10;

/// Memory limit for subjects: larger than what they take, so that none is evicted.
const ROOM: (&str, &str) = ("MEMORY_SUBJECT_BYTES", "268435456");

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let shape = Shape { users: USERS };
    // So few tokens that the server has all of them in memory before the measurement.
    let askers = bench.world.askers_tokens(USERS)?.into_iter().take(10).collect::<Vec<_>>();
    let tokens = bench.world.subjects_tokens(USERS)?;
    let (all, first) = (shape.subjects(), shape.subjects() / FIRST);
    let (some, rest) = tokens.split_at(tokens.len() / 10);
    let batches = |from, until| {
        let batches = requests::batches(shape, &askers, from..until, 100);
        batches.named("BatchCheck, 100 cold subjects")
    };

    let mut subject = Figure::new("memory of a subject with 5 roles, bytes", Target::AtMost(300.0));
    let mut token = Figure::record("memory of a verified token, bytes");

    for round in 1..=bench.effort.rounds {
        // Each round starts a server with an empty cache.
        let server = bench.world.serve(USERS, &[ROOM])?;
        bench.once(round, &server, &batches(0, first), ONE_BY_ONE)?;
        let grown = growth(bench, round, &server, &batches(first, all))?;
        subject.push(grown / crate::number(all - first));

        let again = batches(0, all).named("BatchCheck, 100 warm subjects");
        let (_, asked) = bench.once(round, &server, &again, ONE_BY_ONE)?;
        ensure!(asked < 1.0, "not all subjects are in memory");

        bench.warm(&server, &requests::check_self(shape, some, 0))?;
        let others = requests::check_self(shape, rest, some.len() as u64);
        let others = others.named("Check, cold token");
        let grown = growth(bench, round, &server, &others)?;
        token.push(grown / crate::number(rest.len() as u64));
    }
    bench.report.add([subject, token]);
    Ok(())
}

/// Growth of the server's private memory caused by these calls, in bytes.
fn growth(bench: &mut Bench, round: u64, server: &Server, calls: &Calls) -> anyhow::Result<f64> {
    let before = anonymous_memory(server.pid())?;
    bench.once(round, server, calls, ONE_BY_ONE)?;
    let after = anonymous_memory(server.pid())?;
    Ok(crate::number(after.saturating_sub(before)))
}
