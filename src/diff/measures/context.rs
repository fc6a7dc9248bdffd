//! How much of the difference depends on what is read: the share that a constant explains, what single texts add to it,
//! inputs without content, and positions far into a text.

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::diff::collect::{Sequence, collect};
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::findings::Findings;
use crate::diff::inputs::Inputs;
use crate::diff::mean_difference::{cosine, norm};
use crate::diff::measure::{Measure, Needs, Work, share_read};
use crate::diff::plot::{Ink, Plot, PlotAxis, PlotSeries, TokenLists, places};
use crate::diff::reading::Reading;
use crate::diff::readout;
use crate::diff::relevance::{self, DecodedTokens};
use crate::diff::statistics::mean;
use crate::diff::windows::first_tokens;
use crate::recipe::DiffSection;

/// Context dependence of the difference. A difference that is the same for every input has a `constant_share` of 1, and
/// inputs without content have its direction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Context {
    /// Share of the mean of ‖h_tuned − h_base‖² that v_p, the same for all texts, explains; the part that a mean has by
    /// chance is taken off, so that it can come out below 0.
    pub constant_share: Vec<f64>,
    /// Mean cosine of the difference of a single text with v_p; unlike the share, a few texts with huge differences do not
    /// decide it. Over the first 512 samples.
    pub cosine_with_mean: Vec<f64>,
    /// Single texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub singles: Option<Singles>,
    /// Inputs without content.
    pub inputs: Vec<Input>,
    /// Far positions; absent if `diff.context.far` is empty or fewer than two texts reach the last of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub far: Option<Far>,
}

/// Logit lens of the differences of single texts, mean over texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Singles {
    /// Number of texts.
    pub samples: usize,
    /// Of h_tuned − h_base.
    pub token_relevance: Vec<f64>,
    /// Of h_tuned − h_base − v_p: what is left is about the text itself.
    pub token_relevance_without_mean: Vec<f64>,
}

/// One token over and over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    /// What it is: `beginning of sequence`, `space`, ….
    pub name: String,
    /// Ids, special tokens in front included.
    pub ids: Vec<u32>,
    /// Positions that are read; the arrays run over them.
    pub positions: Vec<usize>,
    /// ‖h_tuned − h_base‖.
    pub delta_norm: Vec<f64>,
    /// Cosine with v_p of the same position.
    pub cosine: Vec<f64>,
    /// Logit lens of h_tuned − h_base.
    #[serde(flatten)]
    pub lens: DecodedTokens,
}

/// Far positions of long texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Far {
    /// Positions; the arrays run over them.
    pub positions: Vec<usize>,
    /// Number of texts, the same at every position.
    pub samples: usize,
    /// ‖v_p‖.
    pub delta_norm: Vec<f64>,
    /// Mean norm of the tuned model's stream over these texts from `diff.norm_skip` on.
    pub expected_norm: f64,
    /// Cosine with the mean of v over the first positions (from 1 on).
    pub cosine: Vec<f64>,
    /// As [`Context::constant_share`].
    pub constant_share: Vec<f64>,
    /// Logit lens of v_p.
    #[serde(flatten)]
    pub lens: DecodedTokens,
}

/// Tokens over and over: their name, and a text of one token.
const REPEATED: [(&str, &str); 5] =
    [("space", " "), ("line break", "\n"), ("full stop", "."), ("the", " the"), ("zero", "0")];

impl Measure for Context {
    const UNITS: &[(&str, &str)] = &[
        ("context.constant_share", "share of the mean squared norm of the difference, at most 1"),
        ("context.cosine_with_mean", "cosine, -1 to 1"),
        ("context.singles.token_relevance", "share of the top tokens, mean over texts, 0 to 1"),
        ("context.singles.token_relevance_without_mean", "share of the top tokens, mean over texts, 0 to 1"),
        ("context.inputs.delta_norm", "L2 norm of the residual stream"),
        ("context.inputs.cosine", "cosine, -1 to 1"),
        ("context.far.delta_norm", "L2 norm of the residual stream"),
        ("context.far.cosine", "cosine, -1 to 1"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.context.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { single_samples: true, ..Needs::default() }
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let section = &settings.context;
        let far = section.far.last().map_or(0, |last| 2 * section.far_samples * (last + 1));
        Work { read: far as f64 * share_read(settings, n_layers), ..Work::default() }
    }

    /// Compares the difference on texts with that of single texts, of inputs without content and of far positions.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        Ok(Some(Context {
            constant_share: reading.activations.constant_share(),
            cosine_with_mean: cosine_with_mean(reading),
            singles: singles(reading)?,
            inputs: inputs(reading)?,
            far: far(reading)?,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        row.put("constant_share_mean", record.and_then(|c| readout::mean(&c.constant_share)));
        row.put_late("context_cosine_with_mean", record.and_then(|c| readout::mean(&c.cosine_with_mean)));
        let singles = record.and_then(|c| c.singles.as_ref());
        let relevance = singles.and_then(|s| readout::mean(&s.token_relevance));
        row.put_late("context_singles_relevance_mean", relevance);
        let without_mean = singles.and_then(|s| readout::mean(&s.token_relevance_without_mean));
        row.put_late("context_singles_relevance_without_mean_mean", without_mean);
        let far = record.and_then(|c| c.far.as_ref());
        row.put_late("context_far_constant_share_mean", far.and_then(|f| readout::mean(&f.constant_share)));
        row.put_late("context_far_cosine_mean", far.and_then(|f| readout::mean(&f.cosine)));
    }

    fn figures(&self, positions: &[usize]) -> Vec<Plot> {
        let at = places(positions);
        let mut plots = vec![Plot {
            key: "context-position".into(),
            title: "How constant the difference is, by position".into(),
            caption: "The share of the squared difference that is the same for all texts, and the mean cosine between \
                      the difference of one text and the mean difference. 1 means that the difference does not depend \
                      on the text."
                .into(),
            x: PlotAxis::positions(positions),
            y: PlotAxis::from_0("share, or cosine", 2, 1.0),
            series: vec![
                PlotSeries::curve(Ink::Narrow, "constant share", &at, &self.constant_share),
                PlotSeries::curve(Ink::Tuned, "cosine of one text with all", &at, &self.cosine_with_mean),
            ],
            null: None,
        }];
        plots.extend(self.singles.as_ref().map(|singles| Plot {
            key: "singles-position".into(),
            title: "Relevant tokens of single texts, by position".into(),
            caption: format!(
                "Logit lens of the difference of one text, and of the same difference without the mean difference. \
                 Mean over {} texts.",
                singles.samples
            ),
            x: PlotAxis::positions(positions),
            y: PlotAxis::from_0("share of the top tokens that are relevant", 2, 0.2),
            series: vec![
                PlotSeries::curve(Ink::Lens, "difference of one text", &at, &singles.token_relevance),
                PlotSeries::curve(Ink::Base, "without the mean", &at, &singles.token_relevance_without_mean),
            ],
            null: None,
        }));
        plots.extend(self.far.as_ref().map(|far| {
            let at = places(&far.positions);
            Plot {
                key: "far-position".into(),
                title: "The difference far into a text".into(),
                caption: format!(
                    "Over {} texts; the cosine is with the difference at the first positions.",
                    far.samples
                ),
                x: PlotAxis::positions(&far.positions),
                y: PlotAxis::from_0("share, or cosine", 2, 1.0),
                series: vec![
                    PlotSeries::curve(Ink::Narrow, "constant share", &at, &far.constant_share),
                    PlotSeries::curve(Ink::Tuned, "cosine with the first positions", &at, &far.cosine),
                ],
                null: None,
            }
        }));
        plots
    }

    fn tokens(&self, _: &[usize]) -> Vec<TokenLists> {
        let lists =
            |positions: &[usize], tokens: &[Vec<TopToken>], name: &str| -> Vec<(String, Vec<TopToken>)> {
                let list =
                    |(p, tokens): (&usize, &Vec<TopToken>)| (format!("{name}position {p}"), tokens.clone());
                positions.iter().zip(tokens).map(list).collect()
            };
        let input =
            |input: &Input| lists(&input.positions, &input.lens.top_tokens, &format!("{}, ", input.name));
        let mut all = vec![TokenLists {
            key: "inputs",
            title: "Logit lens of inputs without content".into(),
            lists: self.inputs.iter().flat_map(input).collect(),
        }];
        all.extend(self.far.as_ref().map(|far| TokenLists {
            key: "far",
            title: "Logit lens of the difference far into a text".into(),
            lists: lists(&far.positions, &far.lens.top_tokens, ""),
        }));
        all
    }
}

fn cosine_with_mean(reading: &Reading) -> Vec<f64> {
    let at = |(place, v): (usize, &Vec<f32>)| {
        let of_place = reading.activations.kept.iter().map(|d| &d[place * v.len()..(place + 1) * v.len()]);
        mean(&of_place.map(|d| cosine(d, v)).collect::<Vec<_>>())
    };
    reading.means.difference.iter().enumerate().map(at).collect()
}

/// `None` without a lexicon, for then there is no relevance.
fn singles(reading: &Reading) -> Result<Option<Singles>> {
    let kept = &reading.activations.kept;
    let samples = reading.settings.context.singles.min(kept.len());
    if reading.prepared.lexicon.is_none() || samples == 0 {
        return Ok(None);
    }
    let (mut plain, mut without_mean) = (Vec::new(), Vec::new());
    for (place, v) in reading.means.difference.iter().enumerate() {
        let of_place = kept[..samples].iter().map(|d| d[place * v.len()..(place + 1) * v.len()].to_vec());
        let differences: Vec<Vec<f32>> = of_place.collect();
        let rest: Vec<Vec<f32>> =
            differences.iter().map(|d| d.iter().zip(v).map(|(d, v)| d - v).collect()).collect();
        plain.push(mean(&relevance::relevances(reading, &differences)?));
        without_mean.push(mean(&relevance::relevances(reading, &rest)?));
    }
    Ok(Some(Singles { samples, token_relevance: plain, token_relevance_without_mean: without_mean }))
}

fn inputs(reading: &Reading) -> Result<Vec<Input>> {
    let (tokenizer, settings) = (reading.inputs.tokenizer, reading.settings);
    let length = 1 + settings.positions.iter().max().copied().unwrap_or(0);
    let encode = |text: &str, special| -> Result<Vec<u32>> {
        Ok(tokenizer.encode(text, special).map_err(|e| anyhow!(e))?.get_ids().to_vec())
    };
    let front = encode("", true)?;
    let mut sequences = Vec::new();
    if let Some(beginning) = beginning(reading.inputs, &front) {
        sequences.push(("beginning of sequence", beginning));
    }
    for (name, text) in REPEATED {
        let Some(&id) = encode(text, false)?.last() else { continue };
        let mut ids = front.clone();
        ids.resize(length.max(front.len() + 1), id);
        sequences.push((name, ids));
    }
    let input = |(name, ids): (&str, Vec<u32>)| {
        reading.inputs.must_have(&ids)?;
        one_input(reading, name, ids)
    };
    sequences.into_iter().map(input).collect()
}

/// The special tokens that stand before every text, or the beginning-of-sequence token that the tokenizer has but does
/// not put there.
fn beginning(inputs: &Inputs, front: &[u32]) -> Option<Vec<u32>> {
    if !front.is_empty() {
        return Some(front.to_vec());
    }
    inputs.pretrained.bos_token.as_ref().and_then(|bos| inputs.tokenizer.token_to_id(bos)).map(|id| vec![id])
}

fn one_input(reading: &Reading, name: &str, ids: Vec<u32>) -> Result<Input> {
    let places: Vec<usize> = (0..reading.settings.positions.len())
        .filter(|&place| reading.settings.positions[place] < ids.len())
        .collect();
    let positions: Vec<usize> = places.iter().map(|&place| reading.settings.positions[place]).collect();
    let probe = Sequence { ids: ids.clone(), read: positions.clone(), norm: 0..0 };
    let differences =
        collect(reading.inputs.base, reading.inputs.tuned, &[probe], &[reading.layer], 0, reading.interrupt)?
            [0]
        .means()
        .difference;
    let cosines = differences.iter().zip(&places).map(|(d, &p)| cosine(d, &reading.means.difference[p]));
    Ok(Input {
        name: name.into(),
        delta_norm: differences.iter().map(|d| norm(d)).collect(),
        cosine: cosines.collect(),
        lens: relevance::read(reading, &differences)?,
        positions,
        ids,
    })
}

fn far(reading: &Reading) -> Result<Option<Far>> {
    let (inputs, section) = (reading.inputs, &reading.settings.context);
    let Some(last) = section.far.last() else { return Ok(None) };
    let mut probes = Vec::new();
    for text in inputs.text {
        if probes.len() == section.far_samples {
            break;
        }
        if let Some(ids) = first_tokens(text, last + 1, inputs.tokenizer)? {
            inputs.must_have(&ids)?;
            let norm = reading.settings.norm_skip.min(ids.len())..ids.len();
            probes.push(Sequence { ids, read: section.far.clone(), norm });
        }
    }
    if probes.len() < 2 {
        return Ok(None);
    }
    inputs.note_longer_than_context("diff.context.far: texts", probes.iter().map(|probe| probe.ids.len()));
    let layers = [reading.layer];
    let found = &collect(inputs.base, inputs.tuned, &probes, &layers, 0, reading.interrupt)?[0];
    let (differences, near) = (found.means().difference, reading.direction());
    Ok(Some(Far {
        positions: section.far.clone(),
        samples: found.samples,
        delta_norm: differences.iter().map(|d| norm(d)).collect(),
        expected_norm: found.tuned_norm(),
        cosine: differences.iter().map(|d| cosine(d, &near)).collect(),
        constant_share: found.constant_share(),
        lens: relevance::read(reading, &differences)?,
    }))
}
