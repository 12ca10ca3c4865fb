//! Report: a table on standard output, a JSON file with all numbers, and an HTML page with
//! plots.

mod html;
mod machine;
mod plot;
mod result;
mod run;
mod table;

use std::{fs, path::Path};

use anyhow::Context;
use serde::Serialize;

use machine::Machine;
pub use result::{ScenarioResult, Target};
pub use run::Run;

use crate::world::{World, data::LoadedDatabase};

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    #[serde(rename = "data")]
    databases: Vec<LoadedDatabase>,
    #[serde(rename = "figures")]
    results: Vec<ScenarioResult>,
    runs: Vec<Run>,
    /// The scenario that runs now.
    #[serde(skip)]
    scenario: &'static str,
}

impl Report {
    /// An empty report.
    ///
    /// # Errors
    /// Returns an error when the machine cannot be described.
    pub fn new(world: &World) -> anyhow::Result<Self> {
        Ok(Self {
            machine: Machine::describe(&world.cores)?,
            databases: world.databases.values().cloned().collect(),
            results: Vec::new(),
            runs: Vec::new(),
            scenario: "",
        })
    }

    /// Assigns all measurements and results that are added after this call to `scenario`.
    pub fn begin_scenario(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// Adds a measurement.
    pub fn add_run(&mut self, run: &Run) {
        self.runs.push(Run { scenario: self.scenario, ..run.clone() });
    }

    /// Evaluates results and adds them.
    pub fn add_results(&mut self, results: impl IntoIterator<Item = ScenarioResult>) {
        for mut result in results {
            result.scenario = self.scenario;
            result.evaluate();
            self.results.push(result);
        }
    }

    /// Writes `report.json` and `report.html`.
    ///
    /// # Errors
    /// Returns an error when a file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let json = dir.join("report.json");
        fs::write(&json, serde_json::to_string_pretty(self)?)
            .with_context(|| json.display().to_string())?;
        let html = dir.join("report.html");
        fs::write(&html, self.html()?).with_context(|| html.display().to_string())?;
        crate::say(&format!("\n{} has every measurement", json.display()));
        crate::say(&format!("{} has the tables and plots", html.display()));
        Ok(())
    }
}
