//! Whether the cost of a decision depends on the size of the database.

use super::{Bench, ONE_BY_ONE, requests};
use crate::{
    load::{Calls, LoadMode},
    report::{Run, ScenarioResult, Target},
    world::{
        server::Server,
        shape::{FIRST_SESSION, Shape},
    },
};

/// Sizes of the smaller databases, in users. Only sizes below the size of the largest database are
/// used.
const SIZES: [u64; 2] = [1_000, 100_000];

/// Number of subjects in the calls. The number is the same for each database, so that the databases
/// differ only in data that no call uses.
const SUBJECTS: u64 = 1_000;

/// Sizes of the databases, in users. The last database is the largest.
pub fn sizes(users: u64) -> Vec<u64> {
    SIZES.into_iter().filter(|size| *size < users).chain([users]).collect()
}

/// A server on one database, and the calls to that server.
struct Database {
    server: Server,
    /// Calls that the cache answers.
    cached_checks: Calls,
    /// Calls that read Postgres.
    postgres_checks: Calls,
}

/// Measurements of one database in a round.
struct Measurements {
    /// Cached checks at the server's highest rate.
    full_load: Run,
    /// Cached checks at half of that rate.
    half_load: Run,
    from_postgres: Run,
}

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut databases = Vec::new();
    for users in sizes(bench.users) {
        let (server, shape) = (bench.world.start_server(users, &[])?, Shape { users });
        let mut tokens = bench.world.checked_user_tokens(users)?;
        tokens.truncate(usize::try_from(SUBJECTS)?);
        let checker_tokens = bench.world.checker_tokens(users)?;
        let cached_checks = requests::check_self(shape, &tokens, FIRST_SESSION);
        let postgres_checks =
            requests::check_fully_consistent(shape, &checker_tokens, (0..SUBJECTS).collect());
        bench.warm_up(&server, &cached_checks)?;
        bench.warm_up(&server, &postgres_checks)?;
        databases.push(Database { server, cached_checks, postgres_checks });
    }

    let mut rate =
        ScenarioResult::new("Check, largest ÷ smallest database, calls/s", Target::One(0.05));
    let mut median =
        ScenarioResult::new("Check, largest ÷ smallest database, p50", Target::One(0.05));
    let mut tail = ScenarioResult::new("Check, largest ÷ smallest database, p99", Target::One(0.1));
    let mut postgres_median =
        ScenarioResult::without_target("Check from Postgres, largest ÷ smallest database, p50");

    for round in 1..=bench.effort.rounds {
        let measurements = measure(bench, round, &databases)?;
        let [smallest, .., largest] = &measurements[..] else {
            anyhow::bail!("the scenario compares two databases: set --users above 1000")
        };
        rate.push_ratio_of_rates(&largest.full_load, &smallest.full_load);
        median.push(largest.half_load.p50 / smallest.half_load.p50);
        tail.push(largest.half_load.p99 / smallest.half_load.p99);
        postgres_median.push(largest.from_postgres.p50 / smallest.from_postgres.p50);
    }
    bench.report.add_results([rate, median, tail, postgres_median]);
    Ok(())
}

/// Sends the same calls to each database, one database after the other.
fn measure(
    bench: &mut Bench,
    round: u64,
    databases: &[Database],
) -> anyhow::Result<Vec<Measurements>> {
    let mut full_loads = Vec::new();
    for Database { server, cached_checks, .. } in databases {
        full_loads.push(bench.measure(round, server, cached_checks, LoadMode::FULL)?);
    }
    // All databases get the same rate: half of the highest rate of the slowest server.
    let lowest_rate = full_loads.iter().map(|run| run.per_second).fold(f64::INFINITY, f64::min);
    let mode = LoadMode::Open { rate: lowest_rate / 2.0 };
    let mut measurements = Vec::new();
    for (database, full_load) in databases.iter().zip(full_loads) {
        let Database { server, cached_checks, postgres_checks } = database;
        let half_load = bench.measure(round, server, cached_checks, mode)?;
        let (from_postgres, _) =
            bench.send_each_once(round, server, &postgres_checks.copy_at_start(), ONE_BY_ONE)?;
        measurements.push(Measurements { full_load, half_load, from_postgres });
    }
    Ok(measurements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_database_comes_last_and_only_once() {
        assert_eq!(sizes(1_000), [1_000]);
        assert_eq!(sizes(50_000), [1_000, 50_000]);
        assert_eq!(sizes(100_000), [1_000, 100_000]);
        assert_eq!(sizes(10_000_000), [1_000, 100_000, 10_000_000]);
    }
}
