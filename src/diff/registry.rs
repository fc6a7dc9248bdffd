//! Every measure, in the order of the record: what an analysis runs and what the summary and the report show.

use anyhow::Result;

use super::columns::{ColumnPlaces, Columns};
use super::findings::Findings;
use super::headline::{TraceMeasure, TraceReading};
use super::inputs::Inputs;
use super::measure::{Measure, Needs, Work};
use super::measures::for_each_measure;
use super::plot::{Number, Plot, TokenLists};
use super::reading::Reading;
use super::record::Readability;
use super::score::Score;
use crate::recipe::DiffSection;

/// A measure of any type: [`Measure`] without its record.
pub struct ListedMeasure {
    /// Key in `readability.json`, of a reader in its `readers`; and in `elapsed_s`.
    pub key: &'static str,
    /// [`Measure::UNITS`].
    pub units: &'static [(&'static str, &'static str)],
    /// [`Measure::is_wanted`].
    pub is_wanted: fn(&DiffSection) -> bool,
    /// [`Measure::needs`].
    pub needs: fn(&DiffSection) -> Needs,
    /// [`Measure::cost`].
    pub cost: fn(&DiffSection, usize) -> Work,
    /// [`Measure::prepare`].
    pub prepare: fn(&Inputs, &mut Findings) -> Result<()>,
    /// [`Measure::measure`]; the record stays with the findings.
    pub measure: fn(&Reading, &mut Findings) -> Result<()>,
    /// Moves its record from the findings to where it stands.
    pub keep: fn(&mut Findings, &mut Readability),
    /// Whether a record has it.
    pub is_in: fn(&Readability) -> bool,
    /// [`Measure::columns`].
    pub columns: fn(Option<&Readability>, &ColumnPlaces, &mut Columns),
    /// [`Measure::scores`] of a record; none if it lacks the measure.
    pub scores: fn(&Readability) -> Vec<Score>,
    /// [`Measure::figures`], likewise.
    pub figures: fn(&Readability) -> Vec<Plot>,
    /// [`Measure::tokens`], likewise.
    pub tokens: fn(&Readability) -> Vec<TokenLists>,
    /// [`Measure::numbers`], likewise.
    pub numbers: fn(&Readability) -> Vec<Number>,
    /// [`Measure::notes`], likewise.
    pub notes: fn(&Readability) -> Vec<String>,
    /// [`Measure::TRACE`].
    pub trace: Option<TraceMeasure>,
    /// [`Measure::trace`] of a record.
    pub trace_of: fn(&Readability) -> Option<TraceReading>,
}

macro_rules! listed {
    // One measure, whose record is at a place of the record of the analysis.
    (@ [$($place:ident).+] $key:ident $record:ident) => {{
        use $crate::diff::measures::$key::$record;
        ListedMeasure {
            key: stringify!($key),
            units: <$record as Measure>::UNITS,
            is_wanted: <$record as Measure>::is_wanted,
            needs: <$record as Measure>::needs,
            cost: <$record as Measure>::cost,
            prepare: <$record as Measure>::prepare,
            measure: |reading, found| {
                let record = <$record as Measure>::measure(reading, found)?;
                record.map(|record| found.put(record));
                Ok(())
            },
            keep: |found, record| record.$($place).+ = found.take::<$record>(),
            is_in: |record| record.$($place).+.is_some(),
            columns: |record, places, row| {
                let own = record.and_then(|record| record.$($place).+.as_ref());
                <$record as Measure>::columns(own, places, row);
            },
            scores: |record| record.$($place).+.as_ref().map(Measure::scores).unwrap_or_default(),
            figures: |record| {
                let own = record.$($place).+.as_ref();
                own.map(|own| Measure::figures(own, &record.positions)).unwrap_or_default()
            },
            tokens: |record| {
                let own = record.$($place).+.as_ref();
                own.map(|own| Measure::tokens(own, &record.positions)).unwrap_or_default()
            },
            numbers: |record| record.$($place).+.as_ref().map(Measure::numbers).unwrap_or_default(),
            notes: |record| record.$($place).+.as_ref().map(Measure::notes).unwrap_or_default(),
            trace: <$record as Measure>::TRACE,
            trace_of: |record| Measure::trace(record.$($place).+.as_ref()?, &record.positions),
        }
    }};
    ($($key:ident: $record:ident,)*; $($reader:ident: $read:ident,)*) => {
        &[
            $(listed!(@ [$key] $key $record),)*
            $(listed!(@ [readers.$reader] $reader $read),)*
        ]
    };
}

/// All of them, as [`super::measures`] lists them.
pub const MEASURES: &[ListedMeasure] = for_each_measure!(listed);

/// Those that the settings ask for.
pub fn wanted(settings: &DiffSection) -> impl Iterator<Item = &'static ListedMeasure> {
    MEASURES.iter().filter(|measure| (measure.is_wanted)(settings))
}

/// All scores of an analysis, in the order of the measures.
pub fn scores(record: &Readability) -> Vec<Score> {
    MEASURES.iter().flat_map(|m| (m.scores)(record)).filter(|score| score.value.is_finite()).collect()
}

/// What those need together.
pub fn needs(settings: &DiffSection) -> Needs {
    wanted(settings).map(|measure| (measure.needs)(settings)).fold(Needs::default(), Needs::or)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_a_measure_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diff/measures");
        let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let files: BTreeSet<String> = files
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
            .filter(|name| name != "mod")
            .collect();
        let listed: BTreeSet<String> = MEASURES.iter().map(|m| m.key.to_string()).collect();
        assert_eq!(files, listed);
    }

    #[test]
    fn units_are_those_of_the_measure_s_own_keys() {
        for measure in MEASURES {
            for (key, _) in measure.units {
                let key = key.strip_prefix("readers.").unwrap_or(key);
                let own = key.strip_prefix(measure.key).is_some_and(|rest| rest.starts_with('.'));
                assert!(own, "{key} in {}", measure.key);
            }
        }
    }
}
