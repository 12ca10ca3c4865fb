//! The values of a figure during a run, and the rule that decides whether the figure grew.

use serde::Serialize;

/// How much a figure may grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// By the sum of this share of the earlier value and this amount.
    Tolerance { share: f64, amount: f64 },
    /// The figure grows or varies by design, for this reason.
    None { why: &'static str },
}

/// One value of a figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Title of the chart: what is measured, and the unit.
    pub chart: &'static str,
    /// Label of the line in the chart: the measured object, such as `replica 0`.
    pub line: String,
    pub value: f64,
    pub limit: Limit,
}

/// All values of a figure, from the first sample to the last.
#[derive(Clone, Debug)]
pub struct Series {
    pub chart: &'static str,
    pub line: String,
    pub limit: Limit,
    /// Times in seconds, and values.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    pub fn new(figure: &Figure) -> Self {
        let Figure { chart, line, limit, .. } = figure.clone();
        Self { chart, line, limit, points: Vec::new() }
    }

    /// The median of one fifth of the run; 0 is the first fifth. `None` if the fifth has no value.
    pub fn median_of_fifth(&self, fifth: usize) -> Option<f64> {
        let count = self.points.len();
        let part = &self.points[count * fifth / 5..count * (fifth + 1) / 5];
        let mut values: Vec<f64> = part.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = values.get(middle)?;
        if values.len() % 2 == 1 {
            return Some(*upper);
        }
        values.get(middle.checked_sub(1)?).map(|lower| f64::midpoint(*lower, *upper))
    }

    /// Whether the figure grew: the median of the last fifth is above the median of the second
    /// fifth by more than the tolerance. The first fifth is not used, because caches fill and
    /// memory is allocated then.
    pub fn grew(&self) -> bool {
        let Limit::Tolerance { share, amount } = self.limit else { return false };
        let (Some(early), Some(late)) = (self.median_of_fifth(1), self.median_of_fifth(4)) else {
            return false;
        };
        late > early + early * share + amount
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a figure with 100 samples grew. The tolerance is 10 % plus 5.
    fn grew(value: impl Fn(f64) -> f64) -> bool {
        let limit = Limit::Tolerance { share: 0.1, amount: 5.0 };
        let figure = Figure { chart: "rows", line: "users".to_owned(), value: 0.0, limit };
        let mut series = Series::new(&figure);
        series.points = (0..100).map(f64::from).map(|time| (time, value(time))).collect();
        series.grew()
    }

    #[test]
    fn steady_growth_is_found() {
        assert!(grew(|time| 100.0 + time));
        // Here the early value is near 0, and the tolerance is nearly 5.
        assert!(grew(|time| time * 0.1));
    }

    #[test]
    fn a_figure_that_fills_to_its_bound_in_the_first_fifth_did_not_grow() {
        assert!(!grew(|time| time.min(20.0) * 50.0));
    }

    #[test]
    fn growth_that_begins_late_is_found() {
        assert!(grew(|time| 100.0 + (time - 60.0).max(0.0)));
    }

    #[test]
    fn single_peaks_and_waves_are_no_growth() {
        let peak = |time: f64| if (85.0..90.0).contains(&time) { 5000.0 } else { 100.0 };
        assert!(!grew(peak));
        // Rows between two passes of the trim.
        assert!(!grew(|time| 100.0 + time % 10.0));
    }

    #[test]
    fn growth_within_the_tolerance_and_a_decrease_are_no_growth() {
        assert!(!grew(|time| 100.0 + time * 0.2));
        assert!(!grew(|time| 1000.0 - time));
    }

    #[test]
    fn a_figure_without_a_tolerance_may_grow() {
        let limit = Limit::None { why: "kept for ever" };
        let figure = Figure { chart: "rows", line: "events".to_owned(), value: 0.0, limit };
        let mut series = Series::new(&figure);
        series.points = (0..100).map(f64::from).map(|time| (time, time)).collect();
        assert!(!series.grew());
    }

    #[test]
    fn a_median_of_a_fifth_contains_only_samples_of_this_fifth() {
        let limit = Limit::Tolerance { share: 0.0, amount: 0.0 };
        let figure = Figure { chart: "rows", line: "users".to_owned(), value: 0.0, limit };
        let mut series = Series::new(&figure);
        assert_eq!(series.median_of_fifth(0), None);
        series.points = (0..10).map(f64::from).map(|time| (time, time)).collect();
        assert_eq!([0, 4].map(|fifth| series.median_of_fifth(fifth)), [Some(0.5), Some(8.5)]);
    }
}
