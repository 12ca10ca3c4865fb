//! Latency of one page of a support desk's search through 100,000 users. Names and emails are
//! stored encrypted, so the server decrypts each row of a search by name or by a part of an email.
//! A page ends at its limit of rows or of time, and its page token continues from that row.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    load::Calls,
    report::{Figure, Target},
    world::tokens::Bearer,
};

/// Target latency, in milliseconds. A person does not notice this wait.
const TARGET: Target = Target::AtMost(150.0);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.serve(USERS, &[])?;
    let support_desk_tokens = bench.world.askers_tokens(USERS)?;
    let mut searches = searches(&support_desk_tokens);

    for round in 1..=bench.effort.rounds {
        for (calls, figure) in &mut searches {
            let run = bench.measure(round, &server, calls, ONE_BY_ONE)?;
            figure.push(run.p95 / 1000.0);
        }
    }
    bench.report.add(searches.into_iter().map(|(_, figure)| figure));
    Ok(())
}

/// The searches and their figures. A search that matches only the last users takes longest.
fn searches(support_desk_tokens: &[Bearer]) -> Vec<(Calls, Figure)> {
    let searches = [
        ("search by a whole email, p95, ms", "email = user-00099000@bench.test", ""),
        ("search by a part of an email, p95, ms", r#"email:"-0009999""#, ""),
        ("search by a name prefix, p95, ms", r#"display_name = "person 9999*""#, ""),
        ("search without a match, p95, ms", "display_name:nobody", ""),
        (
            "search by state, last sign-in first, p95, ms",
            "state = ACTIVE",
            "last_sign_in_time desc",
        ),
    ];
    searches
        .map(|(name, filter, order)| {
            let calls = requests::search(support_desk_tokens, filter, order).named(name);
            (calls, Figure::new(name, TARGET))
        })
        .into()
}
