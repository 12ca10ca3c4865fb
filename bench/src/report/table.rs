//! The table on standard output.

use std::fmt::{self, Display, Write};

use super::{Report, Run, ScenarioResult, Target};
use crate::world::data::LoadedDatabase;

impl Report {
    /// All results, and the medians of all measurements, as text.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n{:<60} {:>8} {:>9} {:>20}", "result", "target", "median", "min..max")?;
        for result in &self.results {
            let target = result.target.map(|target| target.to_string()).unwrap_or_default();
            let ScenarioResult { name, median, min, max, .. } = result;
            let spread = format!("{min:.3}..{max:.3}");
            let met = result.met.map_or("", |met| if met { "met" } else { "MISSED" });
            writeln!(out, "{name:<60} {target:>8} {median:>9.3} {spread:>20}  {met}")?;
            if let Some(note) = &result.note {
                writeln!(out, "    {note}")?;
            }
        }
        writeln!(
            out,
            "\n{:<9} {:<32} {:>9} {:>15} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>6} {:>6}",
            "scenario",
            "calls (median of rounds)",
            "users",
            "load mode",
            "calls/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU µs",
            "server",
            "core",
            "load"
        )?;
        for runs in self.runs_by_measurement() {
            let median = |read_value: fn(&Run) -> f64| median_of(&runs, read_value);
            let Run { scenario, name, users, .. } = runs[0];
            let users = users.map(|users| users.to_string()).unwrap_or_default();
            let mode = mode_of(&runs);
            writeln!(
                out,
                "{scenario:<9} {name:<32} {users:>9} {mode:>15} {:>9.0} {:>8.0} {:>8.0} {:>8.0} \
                 {:>9.2} {:>6.0}% {:>5.0}% {:>5.0}%",
                median(|run| run.per_second),
                median(|run| run.p50),
                median(|run| run.p99),
                median(|run| run.p999),
                median(|run| run.cpu_micros),
                median(|run| run.server_process_busy * 100.0),
                median(|run| run.server_core_busy * 100.0),
                median(|run| run.load_cores_busy * 100.0),
            )?;
        }
        if let Some(warning) = self.disturbance_warning() {
            writeln!(out, "\n{warning}")?;
        }
        Ok(())
    }

    /// Warning that other processes used the server's core, if they did.
    pub(super) fn disturbance_warning(&self) -> Option<String> {
        let (all, disturbed) =
            (self.runs.len(), self.runs.iter().filter(|run| run.is_disturbed()).count());
        (disturbed > 0).then(|| {
            format!(
                "{disturbed} of {all} measurements were disturbed: other processes used the \
                 server's core. The tail latencies and rates of this run are unreliable."
            )
        })
    }

    /// Groups the rounds of the same measurement. The groups are in the order in which they were
    /// measured.
    pub(super) fn runs_by_measurement(&self) -> Vec<Vec<&Run>> {
        let mut groups: Vec<Vec<&Run>> = Vec::new();
        for run in &self.runs {
            let is_same = |group: &&mut Vec<&Run>| run.is_same_measurement(group[0]);
            match groups.iter_mut().find(is_same) {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        groups
    }
}

/// Median of one number over several runs.
pub(super) fn median_of(runs: &[&Run], read_value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| read_value(run)).collect();
    values.sort_by(f64::total_cmp);
    super::result::median(&values)
}

/// The load mode of several rounds, with the median rate if the rates of open loops differ.
pub(super) fn mode_of(runs: &[&Run]) -> String {
    if runs.iter().all(|run| run.mode == runs[0].mode) {
        return runs[0].mode.clone();
    }
    format!("open ~{:.0}/s", median_of(runs, |run| run.per_second))
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Exactly(value) => write!(f, "= {value}"),
            Self::One(tolerance) => write!(f, "1 ± {tolerance}"),
        }
    }
}

impl Display for LoadedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (users, megabytes) = (self.users, self.bytes / 1_000_000);
        match self.took {
            Some(took) => {
                let (seconds, rows) = (took.as_secs_f64(), self.rows);
                let rate = crate::to_f64(rows) / seconds;
                write!(
                    f,
                    "{users} users: {rows} rows loaded in {seconds:.1} s ({rate:.0} rows/s), \
                     {megabytes} MB on disk"
                )
            }
            None => write!(f, "{users} users: kept from an earlier run, {megabytes} MB on disk"),
        }
    }
}
