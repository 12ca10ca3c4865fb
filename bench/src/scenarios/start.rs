//! Start time of the server on a migrated database, and size of the server's binary.

use std::fs;

use super::{Bench, USERS};
use crate::{
    report::{ScenarioResult, Target},
    to_f64,
    world::server::sibling_program,
};

const MIB: f64 = 1024.0 * 1024.0;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut start = ScenarioResult::new("start time of the server, s", Target::AtMost(1.0));
    for _ in 0..bench.effort.rounds {
        start.push(bench.world.start_server(USERS, &[])?.start_time.as_secs_f64());
    }
    let mut size = ScenarioResult::without_target("size of the binary, MiB");
    size.push(to_f64(fs::metadata(sibling_program("tenantry")?)?.len()) / MIB);
    bench.report.add_results([start, size]);
    Ok(())
}
