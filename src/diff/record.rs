//! `diff/readability.json`: every number of one analysis, with its unit, its baseline and its interval.
//!
//! The keys are the ones that other tools read; each measure's own stand in its file. A measure that was not run is
//! absent, never zero. So are those that need narrow text where there is none; here they are empty lists then. Arrays
//! run over [`Readability::positions`] unless said otherwise. A pair `[low, high]` under `…_interval` stands beside the
//! value of the same name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::floor::Floor;
use super::inputs::SharedIds;
use super::lexicon::Lexicon;
use super::mean_difference::{cosine, norm, norm_interval};
use super::measures::for_each_measure;
use super::measures::steering::SteeringGain;
use super::reading::{Prepared, Reading};
use super::readout::{DecodedRelevance, Decoding};
use super::statistics::Interval;

/// Version of the layout of `readability.json`.
pub const SCHEMA: u32 = 1;

macro_rules! record {
    ($($key:ident: $record:ident,)*; $($reader:ident: $read:ident,)*) => {
        /// Readers beyond the mean difference; one that was not run is absent.
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        pub struct Readers {
            $(
                /// What the reader found.
                #[serde(skip_serializing_if = "Option::is_none", default)]
                pub $reader: Option<$crate::diff::measures::$reader::$read>,
            )*
        }

        impl Readers {
            /// Where the floor of a reader stands, given by its key; `None` of what is no reader that was run.
            fn floor_mut(&mut self, key: &str) -> Option<&mut Option<Floor>> {
                match key {
                    $(stringify!($reader) => self.$reader.as_mut().map(|found| &mut found.reader.floor),)*
                    _ => None,
                }
            }

            /// The floor of a reader.
            fn floor(&self, key: &str) -> Option<&Floor> {
                match key {
                    $(stringify!($reader) => self.$reader.as_ref()?.reader.floor.as_ref(),)*
                    _ => None,
                }
            }

            /// Whether none was run.
            pub fn is_empty(&self) -> bool {
                $(self.$reader.is_none() &&)* true
            }
        }

        /// Every number of one analysis.
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        pub struct Readability {
            /// Layout version, see [`SCHEMA`].
            pub schema: u32,
            /// The `MODEL` string of the base.
            pub base: String,
            /// Adapter or model that was compared with the base; `adapter` or `model` stands for that of the run folder.
            pub tuned: String,
            /// What the tuned model is compared with in the base's place; empty where that is the base.
            #[serde(skip_serializing_if = "String::is_empty", default)]
            pub reference: String,
            /// `tuned` where the tuned model's own tokenizer cut the unrelated text; empty where the base's did.
            #[serde(skip_serializing_if = "String::is_empty", default)]
            pub tokenizer: String,
            /// Where one model has more ids than the other: those that are compared.
            #[serde(skip_serializing_if = "Option::is_none", default)]
            pub shared_ids: Option<SharedIds>,
            /// Zero-based index of the block after which the residual stream is read (`resid_post`).
            pub layer: usize,
            /// Number of blocks of the model.
            pub n_layers: usize,
            /// Zero-based token positions (with the special tokens that the tokenizer adds).
            pub positions: Vec<usize>,
            /// Number of windows that were averaged: texts, unless `diff.windows_per_text` is above 1.
            pub samples: usize,
            /// Zero-based row of `diff.text` of each, over all its files in order.
            pub sample_rows: Vec<usize>,
            /// Text of the token at each position when it is the same in all samples (a BOS token), else empty.
            pub position_tokens: Vec<String>,
            /// Unit of each value, by key path.
            pub units: BTreeMap<String, String>,
            /// ‖v_p‖, L2 norm of the mean difference.
            pub delta_norm: Vec<f64>,
            /// Bootstrap interval of [`Self::delta_norm`] over texts; of no width where all windows are of one text.
            pub delta_norm_interval: Vec<Interval>,
            /// η, mean residual norm of the tuned model at this block, repeated over positions.
            pub expected_norm: Vec<f64>,
            /// The same of the base model.
            pub expected_norm_base: Vec<f64>,
            /// Cosine between v_p and the mean of v over the other positions ≥ 1.
            pub position_cosine: Vec<f64>,
            /// The words that count as relevant, most over-represented first.
            #[serde(skip_serializing_if = "Lexicon::is_absent", default)]
            pub lexicon: Lexicon,
            $(
                /// What the measure found; absent where it was not run, or could not be taken.
                #[serde(skip_serializing_if = "Option::is_none", default)]
                pub $key: Option<$crate::diff::measures::$key::$record>,
            )*
            /// What the readers beyond the mean difference found.
            #[serde(skip_serializing_if = "Readers::is_empty", default)]
            pub readers: Readers,
            /// What other organisms score, by the key of a score; a reader's is in `readers`.
            #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
            pub floors: BTreeMap<String, Floor>,
            /// Seconds that each stage took.
            #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
            pub elapsed_s: BTreeMap<String, f64>,
        }
    };
}

for_each_measure!(record);

/// Units of what no measure's file owns.
const UNITS: &[(&str, &str)] = &[
    ("delta_norm", "L2 norm of the residual stream"),
    ("expected_norm", "L2 norm of the residual stream"),
    ("expected_norm_base", "L2 norm of the residual stream"),
    ("position_cosine", "cosine, -1 to 1"),
    ("elapsed_s", "seconds"),
];

impl Readability {
    /// What other organisms score, given by the key of a score.
    pub fn floor(&self, key: &str) -> Option<&Floor> {
        self.readers.floor(key).or_else(|| self.floors.get(key))
    }

    /// Puts it where it belongs.
    pub fn set_floor(&mut self, key: &str, floor: Floor) {
        match self.readers.floor_mut(key) {
            Some(place) => *place = Some(floor),
            None => drop(self.floors.insert(key.to_string(), floor)),
        }
    }

    /// What was read, and the mean differences themselves; all measures are absent.
    pub fn about(reading: &Reading) -> Self {
        let Reading { inputs, prepared: Prepared { windows, .. }, activations, means, resamples, .. } =
            reading;
        let positions = reading.settings.positions.clone();
        let everywhere = |value: f64| vec![value; positions.len()];
        let norms_of = |i: usize| {
            let of_position: Vec<&[f32]> = resamples.iter().map(|r| r[i].as_slice()).collect();
            norm_interval(&means.difference[i], &of_position)
        };
        let text = |id: u32| inputs.tokenizer.decode(&[id], false).unwrap_or_default();
        let common = |p: &usize| windows.common_token(*p).map(text).unwrap_or_default();
        Self {
            schema: SCHEMA,
            base: inputs.pretrained.id.clone(),
            tuned: inputs.tuned_name.clone(),
            reference: inputs.reference_name.clone(),
            tokenizer: match std::ptr::eq(inputs.tokenizer, &inputs.pretrained.tokenizer) {
                true => String::new(),
                false => "tuned".into(),
            },
            shared_ids: inputs.shared_ids,
            layer: reading.layer,
            n_layers: inputs.base.model.n_layers(),
            samples: windows.ids.len(),
            sample_rows: windows.rows.clone(),
            position_tokens: positions.iter().map(common).collect(),
            units: UNITS.iter().map(|(key, unit)| (key.to_string(), unit.to_string())).collect(),
            delta_norm: means.difference.iter().map(|v| norm(v)).collect(),
            delta_norm_interval: (0..positions.len()).map(norms_of).collect(),
            expected_norm: everywhere(activations.tuned_norm()),
            expected_norm_base: everywhere(activations.base_norm()),
            position_cosine: position_cosine(&positions, &means.difference),
            lexicon: [&reading.prepared.lexicon, &reading.prepared.without_words]
                .into_iter()
                .find_map(Clone::clone)
                .unwrap_or_default(),
            positions,
            ..Self::default()
        }
    }
}

impl<'a> DecodedRelevance<'a> {
    /// The logit lens, if it was run and there was narrow text.
    pub fn lens(r: &'a Readability) -> Option<Self> {
        r.logit_lens.as_ref()?.relevance(&r.positions)
    }

    /// The patchscope, if it was run and there was narrow text.
    pub fn patchscope(r: &'a Readability) -> Option<Self> {
        r.patchscope.as_ref()?.relevance(&r.positions)
    }

    /// Both measures, those that were run.
    pub fn all(r: &'a Readability) -> impl Iterator<Item = Self> {
        [Self::lens(r), Self::patchscope(r)].into_iter().flatten()
    }
}

impl<'a> Decoding<'a> {
    /// Both ways, those that were run.
    pub fn all(r: &'a Readability) -> impl Iterator<Item = Self> {
        let lens = r.logit_lens.as_ref().map(|lens| lens.decoding(&r.positions));
        let patchscope = r.patchscope.as_ref().map(|scope| scope.decoding(&r.positions));
        [lens, patchscope].into_iter().flatten()
    }
}

impl<'a> SteeringGain<'a> {
    /// Steering, if it was run and there was narrow text.
    pub fn of(r: &'a Readability) -> Option<Self> {
        r.steering.as_ref()?.gain()
    }
}

/// Cosine of each v_p with the mean of the others at positions of 1 and more.
fn position_cosine(positions: &[usize], difference: &[Vec<f32>]) -> Vec<f64> {
    let hidden = difference[0].len();
    (0..positions.len())
        .map(|i| {
            let mut others = vec![0f32; hidden];
            for (_, v) in difference.iter().enumerate().filter(|(j, _)| *j != i && positions[*j] > 0) {
                others.iter_mut().zip(v).for_each(|(o, x)| *o += x);
            }
            cosine(&difference[i], &others)
        })
        .collect()
}
