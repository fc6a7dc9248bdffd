//! A measure as one number of the trace: what is compared between runs, and what is shown beside it.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::plot::Ink;
use super::statistics::Interval;

/// How a measure is called where it is one number a run.
#[derive(Debug, Clone, Copy)]
pub struct TraceMeasure {
    /// Its key in `claims.json` and in file names.
    pub key: &'static str,
    /// Its name in a sentence.
    pub name: &'static str,
    /// The number in words, for an axis.
    pub axis: &'static str,
    /// Its colour.
    pub ink: Ink,
}

/// A number with what it is compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceNumber {
    /// In the unit of the measure.
    pub value: f64,
    /// Its 95 % interval within the run, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
    /// What it is where nothing is read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<f64>,
    /// 95 % of the null.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null_interval: Option<Interval>,
}

/// A measure as one number of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceReading {
    /// The number.
    #[serde(flatten)]
    pub number: TraceNumber,
    /// The token position that it is of; absent where it is of all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<usize>,
    /// p-value against the null.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
    /// Numbers that are shown beside it, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty", default)]
    pub beside: IndexMap<String, TraceNumber>,
}

impl TraceNumber {
    /// A value without interval or null.
    pub fn new(value: f64) -> Self {
        Self { value, ..Self::default() }
    }

    /// The same without what is not finite; `None` if the value is not.
    pub fn finite(self) -> Option<Self> {
        let whole = |ends: &Interval| ends.iter().all(|end| end.is_finite());
        self.value.is_finite().then_some(Self {
            value: self.value,
            interval: self.interval.filter(whole),
            null: self.null.filter(|null| null.is_finite()),
            null_interval: self.null_interval.filter(whole),
        })
    }
}

impl TraceReading {
    /// The same with a number beside it, if there is one.
    pub fn beside(mut self, name: &str, number: Option<TraceNumber>) -> Self {
        self.beside.extend(number.map(|number| (name.to_string(), number)));
        self
    }

    /// The same without what is not finite; `None` if the number itself is not.
    pub fn finite(self) -> Option<Self> {
        let beside = self.beside.into_iter().filter_map(|(name, number)| Some((name, number.finite()?)));
        Some(Self {
            number: self.number.finite()?,
            beside: beside.collect(),
            p: self.p.filter(|p| p.is_finite()),
            ..self
        })
    }
}
