//! Latency of one page of a support desk's search through 100,000 users. Names and emails are
//! stored encrypted, so a search by name or by a part of an email decrypts each row. A page ends
//! when its limit of rows or of time is reached. The next page continues after the last row of
//! this page.

use super::{Bench, ONE_BY_ONE, USERS, requests};
use crate::{
    load::Calls,
    report::{ScenarioResult, Target},
    world::tokens::Bearer,
};

/// Target latency, in milliseconds. People do not notice such a delay.
const TARGET: Target = Target::AtMost(150.0);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let server = bench.world.start_server(USERS, &[])?;
    let checker_tokens = bench.world.checker_tokens(USERS)?;
    let mut searches = searches(&checker_tokens);

    for round in 1..=bench.effort.rounds {
        for (calls, result) in &mut searches {
            let run = bench.measure(round, &server, calls, ONE_BY_ONE)?;
            // From microseconds to milliseconds.
            result.push(run.p95 / 1000.0);
        }
    }
    bench.report.add_results(searches.into_iter().map(|(_, result)| result));
    Ok(())
}

/// The searches and their results. A search takes longest when only the last users match, or no
/// user.
fn searches(checker_tokens: &[Bearer]) -> Vec<(Calls, ScenarioResult)> {
    let searches = [
        ("search by a whole email, p95, ms", "email = user-00099000@bench.test", ""),
        ("search by a part of an email, p95, ms", r#"email:"-0009999""#, ""),
        ("search by a name prefix, p95, ms", r#"display_name = "person 9999*""#, ""),
        ("search without a match, p95, ms", "display_name:nobody", ""),
        (
            "search by state, most recent sign-in first, p95, ms",
            "state = ACTIVE",
            "last_sign_in_time desc",
        ),
    ];
    searches
        .map(|(name, filter, order_by)| {
            let calls = requests::search(checker_tokens, filter, order_by).with_name(name);
            (calls, ScenarioResult::new(name, TARGET))
        })
        .into()
}
