//! Report: a table on standard output, a JSON file with all numbers, and an HTML page with
//! plots.

mod figure;
mod html;
mod machine;
mod plot;
mod run;
mod table;

use std::{fs, path::Path};

use anyhow::Context;
use serde::Serialize;

pub use figure::{Figure, Target};
use machine::Machine;
pub use run::Run;

use crate::world::{World, data::Loaded};

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    data: Vec<Loaded>,
    figures: Vec<Figure>,
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
            data: world.loaded.values().cloned().collect(),
            figures: Vec::new(),
            runs: Vec::new(),
            scenario: "",
        })
    }

    /// Everything that is added after this call belongs to `scenario`.
    pub fn begin(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// Adds a measurement.
    pub fn record(&mut self, run: &Run) {
        self.runs.push(Run { scenario: self.scenario, ..run.clone() });
    }

    /// Calculates the results of figures and adds the figures.
    pub fn add(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for mut figure in figures {
            figure.scenario = self.scenario;
            figure.conclude();
            self.figures.push(figure);
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
        fs::write(&html, self.page()?).with_context(|| html.display().to_string())?;
        crate::say(&format!("\n{} has every measurement", json.display()));
        crate::say(&format!("{} has the tables and plots", html.display()));
        Ok(())
    }
}
