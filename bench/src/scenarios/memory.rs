//! Memory of the server per cached subject.

use anyhow::ensure;

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    load::Calls,
    proc::anonymous_memory,
    report::{ScenarioResult, Target},
    world::{
        server::Server,
        shape::{FIRST_SESSION, Shape},
    },
};

/// One in this many subjects and tokens is used before the measurement, so that the measurement
/// excludes memory that the server allocates only once.
const WARM_UP_DIVISOR: u64 = 10;

/// Setting of the cache size: 256 MiB, so that no subject is evicted.
const LARGE_CACHE: (&str, &str) = ("MEMORY_SUBJECT_BYTES", "268435456");

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let shape = Shape { users: USERS };
    // Few tokens, so that the server has cached all of them before the measurement.
    let checker_tokens =
        bench.world.checker_tokens(USERS)?.into_iter().take(10).collect::<Vec<_>>();
    let tokens = bench.world.checked_user_tokens(USERS)?;
    let (all_subjects, warm_up_subjects) = (shape.subjects(), shape.subjects() / WARM_UP_DIVISOR);
    let (warm_up_tokens, measured_tokens) = tokens.split_at(tokens.len() / 10);
    let batches = |from, until| {
        let batches = requests::batches(shape, &checker_tokens, from..until, 100);
        batches.with_name("BatchCheck, 100 cold subjects")
    };

    let mut subject_memory =
        ScenarioResult::new("memory of a subject with 5 roles, bytes", Target::AtMost(300.0));
    let mut token_memory = ScenarioResult::without_target("memory of a verified token, bytes");

    for round in 1..=bench.effort.rounds {
        // Each round starts a server with an empty cache.
        let server = bench.world.start_server(USERS, &[LARGE_CACHE])?;
        bench.send_each_once(round, &server, &batches(0, warm_up_subjects), ONE_BY_ONE)?;
        let grown_bytes =
            memory_growth(bench, round, &server, &batches(warm_up_subjects, all_subjects))?;
        subject_memory.push(grown_bytes / crate::to_f64(all_subjects - warm_up_subjects));

        let warm_batches = batches(0, all_subjects).with_name("BatchCheck, 100 warm subjects");
        let (_, statements) = bench.send_each_once(round, &server, &warm_batches, ONE_BY_ONE)?;
        ensure!(statements < 1.0, "not all subjects are cached");

        bench.warm_up(&server, &requests::check_self(shape, warm_up_tokens, FIRST_SESSION))?;
        let cold_token_calls =
            requests::check_self(shape, measured_tokens, warm_up_tokens.len() as u64);
        let cold_token_calls = cold_token_calls.with_name("Check, cold token");
        let grown_bytes = memory_growth(bench, round, &server, &cold_token_calls)?;
        token_memory.push(grown_bytes / crate::to_f64(measured_tokens.len() as u64));
    }
    bench.report.add_results([subject_memory, token_memory]);
    Ok(())
}

/// Growth of the server's private memory caused by these calls, in bytes.
fn memory_growth(
    bench: &mut Bench,
    round: u64,
    server: &Server,
    calls: &Calls,
) -> anyhow::Result<f64> {
    let bytes_before = anonymous_memory(server.pid())?;
    bench.send_each_once(round, server, calls, ONE_BY_ONE)?;
    let bytes_after = anonymous_memory(server.pid())?;
    Ok(crate::to_f64(bytes_after.saturating_sub(bytes_before)))
}
