//! Which readers could have seen the trace: a reader that does not read the unmixed organism says nothing of a mixed one.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::dose::Ratio;
use super::rules::ALPHA;
use super::verdict::{ReadBy, ReaderClaim, VerdictState};

/// Whether a reader reads the unmixed runs of a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReaderPower {
    /// Key of the reader.
    pub reader: String,
    /// The reader in a sentence.
    pub name: String,
    /// Whether the score of every unmixed run lies above the prediction bound of its floor.
    pub is_powered: bool,
    /// The least z of an unmixed run.
    pub least_z: f64,
    /// Unmixed runs with a score and a floor.
    pub runs: usize,
}

/// What the readers with power say of the runs of one mix ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixVerdict {
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// What holds.
    pub state: VerdictState,
    /// The claim in one phrase.
    pub headline: String,
    /// Runs of this ratio.
    pub runs: usize,
}

/// Ratios up to this are unmixed.
const UNMIXED: f64 = 1e-9;

/// Whether each reader with a floor has power; empty without unmixed runs.
pub fn power(groups: &[Ratio]) -> Vec<ReaderPower> {
    let Some((_, unmixed)) = groups.iter().find(|(mix, _)| *mix <= UNMIXED) else { return Vec::new() };
    let mut found: IndexMap<&str, Vec<&ReaderClaim>> = IndexMap::new();
    for verdict in unmixed.iter().filter_map(|run| run.claims.verdict.as_ref()) {
        for (key, claim) in &verdict.readers {
            found.entry(key).or_default().push(claim);
        }
    }
    let of_reader = |(key, claims): (&str, Vec<&ReaderClaim>)| {
        let floors: Vec<_> = claims.iter().filter_map(|claim| claim.floor.as_ref()).collect();
        let least_z = floors.iter().map(|floor| floor.z).reduce(f64::min)?;
        Some(ReaderPower {
            reader: key.into(),
            name: claims.first()?.name.clone(),
            is_powered: floors.len() == unmixed.len() && floors.iter().all(|floor| floor.p < ALPHA),
            least_z,
            runs: floors.len(),
        })
    };
    found.into_iter().filter_map(of_reader).collect()
}

/// The verdict at each ratio from the readers with power: one reads where it reads more than half of the runs.
pub fn mix_verdicts(groups: &[Ratio], power: &[ReaderPower]) -> Vec<MixVerdict> {
    if power.is_empty() {
        return Vec::new();
    }
    let of_ratio = |(mix, runs): &Ratio| {
        let mut by = ReadBy::default();
        for reader in power.iter().filter(|reader| reader.is_powered) {
            let claims =
                runs.iter().filter_map(|run| run.claims.verdict.as_ref()?.readers.get(&reader.reader));
            let claims: Vec<&ReaderClaim> = claims.filter(|claim| claim.floor.is_some()).collect();
            let read = claims.iter().filter(|claim| claim.state.is_read()).count();
            if let Some(first) = claims.first() {
                by.add(&reader.name, first.is_mean_difference, 2 * read > claims.len());
            }
        }
        let (state, headline) = by.conclude();
        MixVerdict { mix: *mix, state, headline, runs: runs.len() }
    };
    groups.iter().map(of_ratio).collect()
}
