//! The columns that a measure adds to `summary.csv`: names and values, in order.

use serde_json::{Map, Value};

use super::readout::{DecodedRelevance, best, mean};
use super::statistics::Interval;

/// One row of a summary: the columns in order, with `Null` for what was not measured.
pub type Row = Map<String, Value>;

/// The positions that a row has columns for.
#[derive(Debug, Clone, Copy)]
pub struct ColumnPlaces<'a> {
    /// The positions of this run's difference, which the arrays of its record run over; none without a record.
    pub measured: &'a [usize],
    /// Those of the difference in any run: each has a column.
    pub all: &'a [usize],
    /// Those at which any run is steered.
    pub steered: &'a [usize],
}

/// A row under construction. A run without the measure gets the same columns as one with it, all of them empty.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    row: Row,
    late: Row,
}

impl Columns {
    /// The columns in order, the late ones behind.
    pub fn into_row(mut self) -> Row {
        self.row.extend(self.late);
        self.row
    }

    /// A column.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.row.insert(key.into(), value.into());
    }

    /// A column behind those of all measures: one that a measure got later, so that the order of the others stays.
    pub fn put_late(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.late.insert(key.into(), value.into());
    }

    /// One column for each position of `places`, from values over the positions `at`.
    pub fn spread(&mut self, key: &str, places: &[usize], at: &[usize], values: &[f64]) {
        for p in places {
            let i = at.iter().position(|q| q == p);
            self.put(format!("{key}_p{p}"), i.and_then(|i| values.get(i).copied()));
        }
    }

    /// The two ends of intervals, as [`Self::spread`].
    pub fn spread_intervals(&mut self, key: &str, places: &[usize], at: &[usize], values: &[Interval]) {
        for (end, name) in ["low", "high"].into_iter().enumerate() {
            let ends: Vec<f64> = values.iter().map(|v| v[end]).collect();
            self.spread(&format!("{key}_{name}"), places, at, &ends);
        }
    }

    /// Mean, maximum and the position of the maximum.
    pub fn overall(&mut self, key: &str, at: &[usize], values: &[f64]) {
        let best = best(at, values);
        self.put(format!("{key}_mean"), mean(values));
        self.put(format!("{key}_max"), best.map(|i| values[i]));
        self.put(format!("{key}_max_position"), best.and_then(|i| at.get(i).copied()));
    }

    /// Relevance of the difference and its baselines at the positions `at`; with its own interval if `with_interval`.
    pub fn relevance(
        &mut self,
        key: &str,
        all: &[usize],
        at: &[usize],
        found: Option<DecodedRelevance>,
        with_interval: bool,
    ) {
        let get = |values: fn(&DecodedRelevance) -> Vec<f64>| found.as_ref().map(values).unwrap_or_default();
        let difference = get(|m| m.share.difference.clone());
        let base = get(|m| m.share.base.clone());
        let tuned = get(|m| m.share.tuned.clone());
        let null = get(|m| m.null.to_vec());
        self.spread(&format!("{key}_relevance"), all, at, &difference);
        if with_interval {
            let interval = found.as_ref().map_or(&[][..], |m| m.interval);
            self.spread_intervals(&format!("{key}_relevance"), all, at, interval);
        }
        self.overall(&format!("{key}_relevance"), at, &difference);
        self.spread(&format!("{key}_relevance_null"), all, at, &null);
        let interval = found.as_ref().map_or(&[][..], |m| m.null_interval);
        self.spread_intervals(&format!("{key}_relevance_null"), all, at, interval);
        self.put(format!("{key}_relevance_null_mean"), mean(&null));
        self.spread(&format!("{key}_relevance_pvalue"), all, at, &get(|m| m.p.to_vec()));
        self.spread(&format!("{key}_relevance_base"), all, at, &base);
        self.overall(&format!("{key}_relevance_base"), at, &base);
        self.spread(&format!("{key}_relevance_tuned"), all, at, &tuned);
        self.overall(&format!("{key}_relevance_tuned"), at, &tuned);
    }
}
