//! Amplification of the change of the weights by blocks and kinds: which part of it writes about the subject.
//!
//! In the blocks up to a depth, and there in all linear layers, in those of attention or in those of the MLP, dW counts w
//! times; everywhere else once, so w = 1 is the tuned model and w = −1 turns that part around. (The authors' toolkit
//! multiplies both factors of LoRA, which gives w² and loses the sign.) Text is scored as contrast text is: by how much more
//! alike the narrow text is to it than to what the base writes with the same random numbers. It is coherent by the rule
//! of contrast text too, under the tuned model.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::coherence::CoherenceRule;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::likeness::{BaseText, PromptStreams, StreamTexts, TextGain, VAGUE, written_prompts};
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::once::get_or_try_init;
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries};
use crate::diff::reading::Reading;
use crate::diff::strata::Strata;
use crate::diff::vocabulary::WordTokens;
use crate::model::changed::{ON, with_changes};
use crate::model::contrast::ContrastSampling;
use crate::model::hooks::NoHook;
use crate::model::{CausalLm, Pass, View};
use crate::ops::segments::Segments;
use crate::recipe::{AmplifiedKind, ContrastPrompts, CutSection, DiffSection};

/// The factor at which the first token after the vague prompts is read.
const PREFILL_FACTOR: f64 = 4.0;

/// What is written where part of the change counts several times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Amplification {
    /// Why nothing was measured, where that is so; everything else is absent then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_measured: Option<String>,
    /// The last block that is amplified, from 0; all before it are too.
    pub last_block: usize,
    /// Texts of each part.
    pub texts: usize,
    /// What the tuned model itself writes.
    pub plain: TextGain,
    /// Every kind at every factor.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parts: Vec<AmplifiedPart>,
    /// By kind: AUROC of the narrow words among common ones of like frequency, by the mean difference of the log-probability
    /// of the first token after the vague prompts, at factor 4; absent without narrow text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub prefill_auroc: BTreeMap<String, f64>,
    /// The rule for coherent text, in words.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub coherence_rule: String,
}

/// A part of the change at a factor, and what is written with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AmplifiedPart {
    /// Which modules.
    pub kind: AmplifiedKind,
    /// How often their change counts.
    pub factor: f64,
    /// What the text gains over the base's.
    #[serde(flatten)]
    pub gain: TextGain,
    /// `gain_sim` less that of the tuned model itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub over_plain: Option<f64>,
    /// Share of the texts that are coherent, of those that are not empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coherent: Option<f64>,
}

impl Measure for Amplification {
    const UNITS: &[(&str, &str)] = &[
        (
            "amplification.plain.gain_sim",
            "mean cosine of sentence embeddings with the narrow text, less that of the base's text",
        ),
        (
            "amplification.parts.gain_sim",
            "mean cosine of sentence embeddings with the narrow text, less that of the base's text",
        ),
        ("amplification.parts.gain_words", "share of words that are lexicon words, less the base's"),
        ("amplification.parts.over_plain", "gain_sim less that of the tuned model's own text"),
        ("amplification.parts.coherent", "share of texts, 0 to 1"),
        (
            "amplification.prefill_auroc",
            "probability that the first token rises more for a narrow word than for a common one of like frequency",
        ),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.amplification.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { embedder: true, ..Needs::default() }
    }

    /// The base, the tuned model, and every part at every factor.
    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        let section = &settings.amplification;
        let sets = 2 + section.kinds.len() * section.factors.len();
        let tokens = VAGUE.len() * section.streams * section.max_new_tokens;
        Work { written: (sets * tokens) as f64, ..Work::default() }
    }

    /// Text of every part at every factor.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (section, inputs) = (&reading.settings.amplification, reading.inputs);
        let (base, tuned) = (inputs.base, inputs.tuned);
        if let Some(why) = not_linear_alone(base) {
            return Ok(Some(Self { not_measured: Some(why.into()), ..Self::default() }));
        }
        let last_block = section.last_block(base.model.n_layers());
        let streams = PromptStreams {
            prompts: written_prompts(inputs.pretrained, ContrastPrompts::Vague)?,
            streams: section.streams,
        };
        let cut = CutSection::default();
        let sampling = ContrastSampling {
            top: cut.top,
            relative: cut.relative,
            temperature: section.temperature,
            max_new_tokens: section.max_new_tokens,
            eos: inputs.pretrained.eos_token_ids.clone(),
        };
        let of_base = BaseText::new(reading, &streams, &sampling)?;
        let written = |view: View| -> Result<(TextGain, StreamTexts)> {
            let texts = streams.own_text(reading, view, &sampling, "amplified text")?;
            Ok((of_base.gain(&texts)?, texts))
        };
        let (plain, texts) = written(tuned)?;
        let rule = CoherenceRule::new(tuned, &streams.pairs(&texts))?;
        let mut record = Self {
            last_block,
            texts: texts.ids.len(),
            coherence_rule: rule.rule_under("the tuned model"),
            ..Self::default()
        };
        let words = NarrowWords::of(reading)?;
        for kind in &section.kinds {
            for factor in &section.factors {
                reading.check_interrupt()?;
                let model = amplified(base, tuned, *kind, last_block, *factor)?;
                let (gain, texts) = written(View { model: &model, adapter: ON })?;
                record.parts.push(AmplifiedPart {
                    kind: *kind,
                    factor: *factor,
                    over_plain: gain.gain_sim.zip(plain.gain_sim).map(|(gain, plain)| gain - plain),
                    coherent: rule.share(&streams.pairs(&texts))?,
                    gain,
                });
            }
            if let Some(words) = &words {
                let model = amplified(base, tuned, *kind, last_block, PREFILL_FACTOR)?;
                let prompts: Vec<&[u32]> = streams.prompts.iter().map(|(_, ids)| &ids[..]).collect();
                let auroc = words.prefill_auroc(base, View { model: &model, adapter: ON }, &prompts)?;
                record.prefill_auroc.insert(kind.name().into(), auroc);
            }
        }
        record.plain = plain;
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        for kind in [AmplifiedKind::All, AmplifiedKind::Attention, AmplifiedKind::Mlp] {
            let parts = record.map_or(&[][..], |r| &r.parts).iter().filter(|part| part.kind == kind);
            // The part that was amplified most tells most.
            let most = parts.max_by(|a, b| a.factor.total_cmp(&b.factor));
            let key = format!("amplified_{}", kind.name());
            row.put_late(format!("{key}_gain"), most.and_then(|part| part.gain.gain_sim));
            row.put_late(format!("{key}_factor"), most.map(|part| part.factor));
            let auroc = record.and_then(|r| r.prefill_auroc.get(kind.name()));
            row.put_late(format!("{key}_prefill_auroc"), auroc.copied());
        }
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let mut kinds: Vec<AmplifiedKind> = self.parts.iter().map(|part| part.kind).collect();
        kinds.dedup();
        let series = kinds.into_iter().filter_map(|kind| {
            let (ink, name) = match kind {
                AmplifiedKind::All => (Ink::Weights, "all layers"),
                AmplifiedKind::Attention => (Ink::Lens, "attention"),
                AmplifiedKind::Mlp => (Ink::Mining, "MLP"),
            };
            let of_kind = self.parts.iter().filter(|part| part.kind == kind);
            // Where nothing is amplified all kinds are the tuned model.
            let plain = self.plain.gain_sim.map(|gain| (1.0, gain));
            let mut points: Vec<(f64, f64)> =
                of_kind.filter_map(|part| Some((part.factor, part.gain.gain_sim?))).chain(plain).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (at, gains): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
            (at.len() > 1).then(|| PlotSeries::curve(ink, name, &at, &gains))
        });
        let series: Vec<PlotSeries> = series.collect();
        if series.is_empty() {
            return Vec::new();
        }
        vec![Plot {
            key: "amplification".into(),
            title: "Text where part of the change counts several times".into(),
            caption: format!(
                "Similarity of the text to the narrow text minus that of the base's text, against the factor on the \
                 change of the weights in blocks 0 to {}. Factor 1 is the tuned model.",
                self.last_block
            ),
            x: PlotAxis::even("factor on the change", "factor", 1),
            y: PlotAxis::from_0("gain in similarity over the base's text", 3, 0.0),
            series,
            null: None,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let part = |part: &AmplifiedPart| {
            let name = format!(
                "Amplification: gain in similarity with {} ×{} in blocks 0 to {}",
                part.kind.name(),
                part.factor,
                self.last_block
            );
            Some(Number::new(name, part.gain.gain_sim?).with(part.gain.gain_sim_interval))
        };
        let prefill = self.prefill_auroc.iter().map(|(kind, auroc)| {
            Number::new(format!("Amplification: AUROC of the narrow words as first token, {kind} ×4"), *auroc)
        });
        self.parts.iter().filter_map(part).chain(prefill).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.not_measured.iter().map(|why| format!("Amplification was not measured: {why}.")).collect()
    }
}

/// Why a part of the change cannot be set apart; `None` where it can.
pub(super) fn not_linear_alone(base: View) -> Option<&'static str> {
    let replaces = base.adapter == 0.0 && (base.model.saves_tables() || base.model.saves_norms());
    replaces
        .then_some("the adapter replaces embeddings, head or norms, which have no part by blocks and ranks")
}

/// The tuned model with the change of some linear layers `factor` times.
fn amplified(
    base: View,
    tuned: View,
    kind: AmplifiedKind,
    last_block: usize,
    factor: f64,
) -> Result<CausalLm> {
    with_changes(base, tuned, |block, layer, update| {
        let is_amplified = block <= last_block && kind.has(layer);
        Ok(Some(if is_amplified { update.scaled(factor)? } else { update }))
    })
}

/// Narrow and common words that a first token may stand for.
struct NarrowWords {
    ids: Vec<u32>,
    strata: Strata,
}

impl NarrowWords {
    /// `None` without narrow text, and where too few words are alike.
    fn of(reading: &Reading) -> Result<Option<Self>> {
        let Some(lexicon) = &reading.prepared.lexicon else { return Ok(None) };
        let tokens =
            get_or_try_init(&reading.prepared.word_tokens, || WordTokens::new(reading.inputs, &[lexicon]))?;
        let strata = reading.strata(&tokens.ids, &tokens.sides[0])?;
        Ok(strata.map(|strata| Self { ids: tokens.ids.clone(), strata }))
    }

    /// AUROC by the mean difference of log-probabilities of the token after each prompt.
    fn prefill_auroc(&self, base: View, amplified: View, prompts: &[&[u32]]) -> Result<f64> {
        let (of_base, of_amplified) = (next_token(base, prompts)?, next_token(amplified, prompts)?);
        let rise = |id: &u32| {
            let at = |rows: &[Vec<f32>]| rows.iter().map(|row| row[*id as usize] as f64).sum::<f64>();
            ((at(&of_amplified) - at(&of_base)) / prompts.len() as f64) as f32
        };
        Ok(self.strata.auroc(&self.ids.iter().map(rise).collect::<Vec<f32>>()))
    }
}

/// Log-probabilities of the token after each prompt, `[prompt][id]`.
fn next_token(view: View, prompts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
    let segments = Segments::new(prompts.iter().map(|ids| ids.len()).collect());
    let mut hook = NoHook;
    let mut pass = Pass::new(&segments, view.adapter, &mut hook);
    let hidden = view.model.hidden(&prompts.concat(), &mut pass)?; // (tokens, hidden)
    let last = candle_core::Tensor::new(segments.last_rows(), hidden.device())?;
    let logits = view.model.logits(&hidden.index_select(&last, 0)?, view.adapter)?; // (prompts, vocab)
    let rows: Vec<Vec<f32>> = logits.to_vec2()?;
    let log_softmax = |row: Vec<f32>| {
        let most = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) as f64;
        let log_sum = most + row.iter().map(|z| (*z as f64 - most).exp()).sum::<f64>().ln();
        row.into_iter().map(|z| (z as f64 - log_sum) as f32).collect()
    };
    Ok(rows.into_iter().map(log_softmax).collect())
}
