//! The report of a run, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, time::Duration};

use anyhow::Context;
use serde::Serialize;

use crate::{
    checks::{Verdict, Violation},
    history::{Fault, Op, Outcome},
};

/// Maximum number of violations that are printed; the JSON report has all of them.
const PRINTED_VIOLATIONS: usize = 10;

#[derive(Serialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    pub replicas: usize,
    pub workers: usize,
    operations: BTreeMap<&'static str, Counts>,
    faults: Vec<Fault>,
    violations: Vec<Violation>,
    longest_staleness_ms: u128,
    stalest_answer: Option<String>,
    lost_writes: usize,
    refused_tokens: usize,
}

/// Numbers of operations of one method, by outcome.
#[derive(Default, Serialize)]
struct Counts {
    ok: usize,
    refused: usize,
    unknown: usize,
    internal: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Refused { .. } => self.refused += 1,
            Outcome::Unknown(_) => self.unknown += 1,
            Outcome::Internal(_) => self.internal += 1,
        }
    }
}

/// The options of a run that a report repeats.
pub struct RunOptions {
    pub seed: u64,
    pub duration: Duration,
    pub replicas: usize,
    pub workers: usize,
}

impl Report {
    pub fn new(options: &RunOptions, ops: &[Op], faults: Vec<Fault>, verdict: Verdict) -> Self {
        let mut operations: BTreeMap<&'static str, Counts> = BTreeMap::new();
        for op in ops {
            operations.entry(op.method).or_default().add(&op.outcome);
        }
        Self {
            seed: options.seed,
            seconds: options.duration.as_secs_f64(),
            replicas: options.replicas,
            workers: options.workers,
            operations,
            faults,
            violations: verdict.violations,
            longest_staleness_ms: verdict.longest_staleness.as_millis(),
            stalest_answer: verdict.stalest_answer,
            lost_writes: verdict.lost_writes,
            refused_tokens: verdict.refused_tokens,
        }
    }

    pub fn has_violations(&self) -> bool {
        !self.violations.is_empty()
    }

    /// The report as text.
    ///
    /// # Errors
    /// Never: writing to a string cannot fail.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "\nseed {}\n", self.seed)?;
        writeln!(
            text,
            "{:<22} {:>8} {:>8} {:>8} {:>8}",
            "operation", "ok", "refused", "unknown", "internal"
        )?;
        let mut total = Counts::default();
        for (method, counts) in &self.operations {
            write_counts(&mut text, method, counts)?;
            total.ok += counts.ok;
            total.refused += counts.refused;
            total.unknown += counts.unknown;
            total.internal += counts.internal;
        }
        write_counts(&mut text, "all", &total)?;
        self.write_faults(&mut text)?;
        writeln!(text, "\nlongest staleness {} ms", self.longest_staleness_ms)?;
        if let Some(answer) = &self.stalest_answer {
            writeln!(text, "  {answer}")?;
        }
        writeln!(text, "\nacknowledged writes that failovers lost {}", self.lost_writes)?;
        writeln!(text, "calls with a refused consistency token {}", self.refused_tokens)?;
        self.write_violations(&mut text)?;
        Ok(text)
    }

    fn write_faults(&self, text: &mut String) -> std::fmt::Result {
        let mut kinds: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for fault in &self.faults {
            let (count, longest) = kinds.entry(fault.nemesis).or_default();
            *count += 1;
            *longest = (*longest).max(fault.recovery.unwrap_or(Duration::MAX));
        }
        writeln!(text, "\n{:<22} {:>8} {:>18}", "fault", "number", "longest recovery")?;
        for (kind, (count, longest)) in kinds {
            writeln!(text, "{kind:<22} {count:>8} {:>15} ms", longest.as_millis())?;
        }
        Ok(())
    }

    fn write_violations(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{} violations", self.violations.len())?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for violation in &self.violations {
            *counts.entry(violation.invariant).or_default() += 1;
        }
        for (invariant, count) in counts {
            writeln!(text, "  {count} of: {invariant}")?;
        }
        for violation in self.violations.iter().take(PRINTED_VIOLATIONS) {
            writeln!(text, "\nVIOLATION of: {}\n  {}", violation.invariant, violation.text)?;
            for operation in &violation.operations {
                writeln!(text, "  {operation}")?;
            }
        }
        Ok(())
    }

    /// Writes the report and the history below `dir`.
    ///
    /// # Errors
    /// Returns an error when a file cannot be written.
    pub fn write(&self, dir: &Path, ops: &[Op]) -> anyhow::Result<()> {
        let path = dir.join("report.json");
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| path.display().to_string())?;
        let mut history = String::new();
        for op in ops {
            writeln!(history, "{op}")?;
        }
        let path = dir.join("history.txt");
        fs::write(&path, history).with_context(|| path.display().to_string())
    }
}

fn write_counts(text: &mut String, method: &str, counts: &Counts) -> std::fmt::Result {
    let Counts { ok, refused, unknown, internal } = counts;
    writeln!(text, "{method:<22} {ok:>8} {refused:>8} {unknown:>8} {internal:>8}")
}
