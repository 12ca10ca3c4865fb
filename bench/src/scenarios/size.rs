//! Whether the cost of a decision depends on the size of the database.

use super::{Bench, ONE_BY_ONE, requests};
use crate::{
    load::{Calls, Pace},
    report::{Figure, Run, Target},
    world::{server::Server, shape::Shape},
};

/// Sizes of the smaller databases, in users. Sizes not below the largest database are left out.
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
    warm: Calls,
    read: Calls,
}

/// Measurements of one database in a round.
struct Cost {
    full: Run,
    half: Run,
    read: Run,
}

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut databases = Vec::new();
    for users in sizes(bench.users) {
        let (server, shape) = (bench.world.serve(users, &[])?, Shape { users });
        let mut tokens = bench.world.subjects_tokens(users)?;
        tokens.truncate(usize::try_from(SUBJECTS)?);
        let checker_tokens = bench.world.askers_tokens(users)?;
        let warm = requests::check_self(shape, &tokens, 0);
        let read = requests::check_fresh(shape, &checker_tokens, (0..SUBJECTS).collect());
        bench.warm(&server, &warm)?;
        bench.warm(&server, &read)?;
        databases.push(Database { server, warm, read });
    }

    let mut rate = Figure::new("Check, largest ÷ smallest database, calls/s", Target::One(0.05));
    let mut median = Figure::new("Check, largest ÷ smallest database, p50", Target::One(0.05));
    let mut tail = Figure::new("Check, largest ÷ smallest database, p99", Target::One(0.1));
    let mut read = Figure::record("Check from Postgres, largest ÷ smallest database, p50");

    for round in 1..=bench.effort.rounds {
        let costs = measure(bench, round, &databases)?;
        let [smallest, .., largest] = &costs[..] else {
            anyhow::bail!("one database can't be compared: take more --users")
        };
        rate.ratio_of_rates(&largest.full, &smallest.full);
        median.push(largest.half.p50 / smallest.half.p50);
        tail.push(largest.half.p99 / smallest.half.p99);
        read.push(largest.read.p50 / smallest.read.p50);
    }
    bench.report.add([rate, median, tail, read]);
    Ok(())
}

/// Sends the same calls to each database, in turn.
fn measure(bench: &mut Bench, round: u64, databases: &[Database]) -> anyhow::Result<Vec<Cost>> {
    let mut full = Vec::new();
    for Database { server, warm, .. } in databases {
        full.push(bench.measure(round, server, warm, Pace::FULL)?);
    }
    // All databases get the same rate: half of the highest rate of the slowest server.
    let lowest_rate = full.iter().map(|run| run.per_second).fold(f64::INFINITY, f64::min);
    let pace = Pace::Open { rate: lowest_rate / 2.0 };
    let mut costs = Vec::new();
    for (Database { server, warm, read }, full) in databases.iter().zip(full) {
        let half = bench.measure(round, server, warm, pace)?;
        let (read, _) = bench.once(round, server, &read.again(), ONE_BY_ONE)?;
        costs.push(Cost { full, half, read });
    }
    Ok(costs)
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
