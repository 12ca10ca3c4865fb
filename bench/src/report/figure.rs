//! A figure: a measured number with one value per round, compared with a target.

use serde::Serialize;

use super::Run;

/// Target value of a figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub enum Target {
    /// At least this value.
    AtLeast(f64),
    /// At most this value.
    AtMost(f64),
    /// Exactly this value, in every round.
    Exactly(f64),
    /// 1 within measurement noise: the rounds lie on both sides of 1, or the median is within
    /// this distance of 1.
    One(f64),
}

#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The scenario that measured the figure.
    pub scenario: &'static str,
    /// Name, with the unit unless it is a ratio.
    pub name: &'static str,
    /// Target value. `None` for a figure that is only recorded.
    pub target: Option<Target>,
    /// One value per round.
    pub rounds: Vec<f64>,
    /// Median of the rounds.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Whether the target is met.
    pub met: Option<bool>,
    /// Remark for the reader of the report.
    pub note: Option<String>,
    /// Number of rounds in which the load, not the server, limited the rate of one side.
    #[serde(skip)]
    client_bound: usize,
}

impl Figure {
    /// A figure with a target.
    pub fn new(name: &'static str, target: Target) -> Self {
        Self { target: Some(target), ..Self::record(name) }
    }

    /// A figure without a target.
    pub fn record(name: &'static str) -> Self {
        Self {
            scenario: "",
            name,
            target: None,
            rounds: Vec::new(),
            median: f64::NAN,
            min: f64::NAN,
            max: f64::NAN,
            met: None,
            note: None,
            client_bound: 0,
        }
    }

    /// Adds the value of one round.
    pub fn push(&mut self, value: f64) {
        self.rounds.push(value);
    }

    /// Adds the ratio of two rates. The ratio describes the server only when the server limited
    /// both rates, so rounds that were client-bound are counted.
    pub fn ratio_of_rates(&mut self, this: &Run, that: &Run) {
        self.push(this.per_second / that.per_second);
        self.client_bound += usize::from(this.client_bound || that.client_bound);
    }

    /// Calculates the median, the spread, the result and the note from the rounds.
    pub fn conclude(&mut self) {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return };
        (self.min, self.max, self.median) = (*min, *max, median(&sorted));
        self.met = self.target.map(|target| match target {
            Target::AtLeast(least) => self.median >= least,
            Target::AtMost(most) => self.median <= most,
            Target::Exactly(value) => sorted.iter().all(|round| (round - value).abs() < 1e-9),
            Target::One(near) => {
                (self.min <= 1.0 && self.max >= 1.0) || (self.median - 1.0).abs() <= near
            }
        });
        if self.client_bound > 0 {
            let (bound, all) = (self.client_bound, self.rounds.len());
            self.note = Some(format!(
                "client-bound in {bound} of {all} rounds: the server did not fill its core, so \
                 compare its CPU instead"
            ));
        }
    }
}

/// The median of sorted numbers.
pub(super) fn median(sorted: &[f64]) -> f64 {
    let middle_index = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle_index - 1], sorted[middle_index])
    } else {
        sorted[middle_index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(target: Target, rounds: &[f64]) -> Figure {
        let mut figure = Figure::new("f", target);
        figure.rounds = rounds.to_vec();
        figure.conclude();
        figure
    }

    fn same(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn a_figure_is_its_rounds_median_with_their_spread() {
        let odd = figure(Target::AtLeast(0.9), &[0.95, 0.5, 0.91]);
        assert!(same(odd.median, 0.91) && same(odd.min, 0.5) && same(odd.max, 0.95));
        assert_eq!(odd.met, Some(true));
        let even = figure(Target::AtMost(3.0), &[4.0, 1.0, 3.0, 3.5]);
        assert!(same(even.median, 3.25));
        assert_eq!(even.met, Some(false));
    }

    #[test]
    fn an_exact_target_must_be_met_in_every_round() {
        assert_eq!(figure(Target::Exactly(1.0), &[1.0, 1.0]).met, Some(true));
        assert_eq!(figure(Target::Exactly(1.0), &[1.0, 1.0, 1.001]).met, Some(false));
    }

    #[test]
    fn a_target_of_one_is_met_when_rounds_lie_on_both_sides_or_near() {
        assert_eq!(figure(Target::One(0.03), &[0.8, 1.5, 1.4]).met, Some(true));
        assert_eq!(figure(Target::One(0.03), &[1.01, 1.02, 1.2]).met, Some(true));
        assert_eq!(figure(Target::One(0.03), &[1.1, 1.2, 1.3]).met, Some(false));
    }
}
