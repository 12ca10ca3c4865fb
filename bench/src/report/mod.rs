//! What was found: a table for people, a file for programs, a page with plots.

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

/// All of it.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    data: Vec<Loaded>,
    figures: Vec<Figure>,
    runs: Vec<Run>,
    /// What is being found out.
    #[serde(skip)]
    scenario: &'static str,
}

impl Report {
    /// A report with nothing found yet.
    ///
    /// # Errors
    /// When the machine can't be described.
    pub fn new(world: &World) -> anyhow::Result<Self> {
        Ok(Self {
            machine: Machine::describe(&world.cores)?,
            data: world.loaded.values().cloned().collect(),
            figures: Vec::new(),
            runs: Vec::new(),
            scenario: "",
        })
    }

    /// What is added from here on, this scenario found.
    pub fn begin(&mut self, scenario: &'static str) {
        self.scenario = scenario;
    }

    /// Adds a measurement.
    pub fn record(&mut self, run: &Run) {
        self.runs.push(Run { scenario: self.scenario, ..run.clone() });
    }

    /// Adds what was found.
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
    /// When it can't be written.
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
