//! Start time of the server on a migrated database, and size of the server's binary.

use std::fs;

use super::{Bench, USERS};
use crate::{
    number,
    report::{Figure, Target},
    world::server::sibling,
};

const MIB: f64 = 1024.0 * 1024.0;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut start = Figure::new("start until it serves, s", Target::AtMost(1.0));
    for _ in 0..bench.effort.rounds {
        start.push(bench.world.serve(USERS, &[])?.started_in.as_secs_f64());
    }
    let mut size = Figure::record("the program, MiB");
    size.push(number(fs::metadata(sibling("tenantry")?)?.len()) / MIB);
    bench.report.add([start, size]);
    Ok(())
}
