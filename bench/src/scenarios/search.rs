//! Time that a support desk waits for a page of a search through 100,000 users. Names and parts
//! of emails are stored encrypted, so the server decrypts row by row. A page ends at its limit
//! of rows or of time, and its page token continues from there.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    load::Calls,
    report::{Figure, Target},
    world::tokens::Bearer,
};

/// Wait that a person does not notice, in milliseconds.
const TARGET: Target = Target::AtMost(150.0);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let askers = bench.world.askers_tokens(USERS)?;
    let mut searches = searches(&askers);

    for round in 1..=bench.effort.rounds {
        for (calls, figure) in &mut searches {
            let run = bench.measure(round, &server, calls, ONE_BY_ONE)?;
            figure.push(run.p95 / 1000.0);
        }
    }
    bench.report.add(searches.into_iter().map(|(_, figure)| figure));
    Ok(())
}

/// Searches, each with its figure. A search that matches only the last users takes longest.
fn searches(askers: &[Bearer]) -> Vec<(Calls, Figure)> {
    let searches = [
        ("search by a whole email, p95, ms", "email = user-00099000@bench.test", ""),
        ("search by a part of an email, p95, ms", r#"email:"-0009999""#, ""),
        ("search by the begin of a name, p95, ms", r#"display_name = "person 9999*""#, ""),
        ("search that finds nothing, p95, ms", "display_name:nobody", ""),
        (
            "search by state, last sign-in first, p95, ms",
            "state = ACTIVE",
            "last_sign_in_time desc",
        ),
    ];
    searches
        .map(|(name, filter, order)| {
            let calls = requests::search(askers, filter, order).named(name);
            (calls, Figure::new(name, TARGET))
        })
        .into()
}
