//! A result of a scenario: a number with one value per round, and usually a target.

use serde::Serialize;

use super::Run;

/// Target of a result.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub enum Target {
    /// At least this value.
    AtLeast(f64),
    /// At most this value.
    AtMost(f64),
    /// Exactly this value, in every round.
    Exactly(f64),
    /// 1 within measurement noise: some rounds are below 1 and some above 1, or the median differs
    /// from 1 by at most this value.
    One(f64),
}

#[derive(Clone, Debug, Serialize)]
pub struct ScenarioResult {
    /// The scenario that measured the result.
    pub scenario: &'static str,
    /// Name, with the unit unless it is a ratio.
    pub name: &'static str,
    /// `None` for a result that is only recorded.
    pub target: Option<Target>,
    /// The values, one per round.
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
    /// Number of rounds in which the load generator, and not the server, limited a rate.
    #[serde(skip)]
    client_bound_rounds: usize,
}

impl ScenarioResult {
    /// A result with a target.
    pub fn new(name: &'static str, target: Target) -> Self {
        Self { target: Some(target), ..Self::without_target(name) }
    }

    /// A result without a target.
    pub fn without_target(name: &'static str) -> Self {
        Self {
            // The report sets the scenario when the result is added.
            scenario: "",
            name,
            target: None,
            rounds: Vec::new(),
            median: f64::NAN,
            min: f64::NAN,
            max: f64::NAN,
            met: None,
            note: None,
            client_bound_rounds: 0,
        }
    }

    /// Adds the value of one round.
    pub fn push(&mut self, value: f64) {
        self.rounds.push(value);
    }

    /// Adds the ratio of two rates. The ratio describes the server only when the server limited
    /// both rates, so client-bound rounds are counted.
    pub fn push_ratio_of_rates(&mut self, numerator: &Run, denominator: &Run) {
        self.push(numerator.per_second / denominator.per_second);
        self.client_bound_rounds += usize::from(numerator.client_bound || denominator.client_bound);
    }

    /// Calculates the median, the spread and the note, and whether the target is met.
    pub fn evaluate(&mut self) {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return };
        (self.min, self.max, self.median) = (*min, *max, median(&sorted));
        self.met = self.target.map(|target| match target {
            Target::AtLeast(least) => self.median >= least,
            Target::AtMost(most) => self.median <= most,
            Target::Exactly(value) => sorted.iter().all(|round| (round - value).abs() < 1e-9),
            Target::One(tolerance) => {
                (self.min <= 1.0 && self.max >= 1.0) || (self.median - 1.0).abs() <= tolerance
            }
        });
        if self.client_bound_rounds > 0 {
            let (bound, all) = (self.client_bound_rounds, self.rounds.len());
            self.note = Some(format!(
                "client-bound in {bound} of {all} rounds: the server did not use its whole core, \
                 so compare the server CPU instead"
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

    fn result(target: Target, rounds: &[f64]) -> ScenarioResult {
        let mut result = ScenarioResult::new("a ratio", target);
        result.rounds = rounds.to_vec();
        result.evaluate();
        result
    }

    fn is_equal(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn a_result_has_the_median_and_the_spread_of_its_rounds() {
        let odd = result(Target::AtLeast(0.9), &[0.95, 0.5, 0.91]);
        assert!(is_equal(odd.median, 0.91) && is_equal(odd.min, 0.5) && is_equal(odd.max, 0.95));
        assert_eq!(odd.met, Some(true));
        let even = result(Target::AtMost(3.0), &[4.0, 1.0, 3.0, 3.5]);
        assert!(is_equal(even.median, 3.25));
        assert_eq!(even.met, Some(false));
    }

    #[test]
    fn an_exact_target_must_be_met_in_every_round() {
        assert_eq!(result(Target::Exactly(1.0), &[1.0, 1.0]).met, Some(true));
        assert_eq!(result(Target::Exactly(1.0), &[1.0, 1.0, 1.001]).met, Some(false));
    }

    #[test]
    fn a_target_of_one_is_met_on_both_sides_of_one_or_near_one() {
        assert_eq!(result(Target::One(0.03), &[0.8, 1.5, 1.4]).met, Some(true));
        assert_eq!(result(Target::One(0.03), &[1.01, 1.02, 1.2]).met, Some(true));
        assert_eq!(result(Target::One(0.03), &[1.1, 1.2, 1.3]).met, Some(false));
    }
}
