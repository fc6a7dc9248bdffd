//! Patchscope with an offline choice of scale.
//!
//! Three few-shot identity prompts end in a lone `?`. At the block that is read, the output at that token is
//! replaced by s·u, u the direction scaled to the norm η; the next-token distribution at the same place says
//! what the direction means (Ghandeharioun et al., arXiv 2401.06102; scales and intersection as in the
//! authors' toolkit of arXiv 2510.13900). Tokens count that are among the top K for all three prompts; their
//! score is the mean probability.
//!
//! Only the last token changes, and only above the block: the prompts' keys and values are computed once, and
//! every direction and scale costs one token through the upper blocks.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::collect::to_tensor;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::{Decoded, DecodedMean, Top, TopToken, largest};
use crate::diff::embedder::Embedder;
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::inputs::check_interrupt;
use crate::diff::mean_difference::factor_to;
use crate::diff::measure::{Measure, Needs, Work, share_read};
use crate::diff::plot::{Ink, Plot};
use crate::diff::reading::Reading;
use crate::diff::readout::{DecodedRelevance, Decoding};
use crate::diff::relevance::{DecodedTokens, TokenRelevance};
use crate::diff::score::{Score, relevance_score};
use crate::diff::statistics::{Interval, Null};
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::hooks::NoHook;
use crate::model::{KvCache, Pass};
use crate::ops::kernels::exp::softmax;
use crate::ops::segments::Segments;
use crate::progress;
use crate::recipe::{DiffSection, PatchscopeSection};
use crate::tokenizer::Tokenizer;
use crate::words::one_word;

/// The name of its file in the folder of an analysis.
pub const FILE: &str = "patchscope.jsonl";

const WORDS: [[&str; 3]; 3] = [["man", "1135", "hello"], ["bear", "42", "blue"], ["921", "target", "anna"]];

/// How the scale is chosen, in words.
pub const SELECTOR: &str = "offline: the scale whose top tokens that are words are most alike (mean pairwise cosine \
of their sentence embeddings, at least 5 words, times the share of words); it does not know the organism";

/// The same where there was nothing to choose.
pub const ONLY_SCALE: &str = "the only scale of the recipe";

/// Directions times scales in one forward pass, at least: with fewer rows the weights are read more often than they are used.
const BATCH: usize = 64;

/// Bytes that the logits of one forward pass of more rows may take, all prompts together.
const LOGIT_BYTES: usize = 192 << 20;

/// Patchscope: the difference put in place of a token in an identity prompt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Patchscope {
    /// Positions that the arrays here run over, where `diff.patchscope.positions` names some; else all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub positions: Vec<usize>,
    /// Scale (in η) whose tokens are most coherent as a set.
    pub best_scale: Vec<f64>,
    /// How the scale was chosen, in words.
    pub scale_selector: String,
    /// Tokens at the best scale, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Relevance of the top tokens.
    #[serde(skip_serializing_if = "TokenRelevance::is_absent", default)]
    pub token_relevance: TokenRelevance,
    /// Best tokens of random differences, each at its own best scale, as many as there are positions; absent without a
    /// lexicon.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null_tokens: Vec<Vec<TopToken>>,
    /// Mean relevance of the null directions, each at its own best scale, repeated over positions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null: Vec<f64>,
    /// 2.5 % and 97.5 % quantiles of the null directions' relevance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null_interval: Vec<Interval>,
    /// (1 + null directions at least as relevant) / (1 + null directions).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_p: Vec<f64>,
    /// Mean relevance of the same tokens to the other candidate corpora.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_others: Vec<f64>,
    /// The difference put in place of a token of the base model.
    #[serde(default)]
    pub in_base: DecodedTokens,
}

impl Patchscope {
    /// The positions that its arrays run over, of an analysis at `all` positions.
    pub fn positions<'a>(&'a self, all: &'a [usize]) -> &'a [usize] {
        if self.positions.is_empty() { all } else { &self.positions }
    }

    /// How relevant the tokens are, of an analysis at `all` positions; `None` where there was no narrow text.
    pub fn relevance<'a>(&'a self, all: &'a [usize]) -> Option<DecodedRelevance<'a>> {
        (!self.token_relevance.difference.is_empty()).then(|| DecodedRelevance {
            name: "patchscope",
            top: self.top_tokens.first().map_or(0, Vec::len),
            key: "patchscope",
            positions: self.positions(all),
            share: &self.token_relevance,
            null: &self.token_relevance_null,
            null_interval: &self.token_relevance_null_interval,
            p: &self.token_relevance_p,
            interval: &[],
            scale: &self.best_scale,
        })
    }

    /// What was decoded, of an analysis at `all` positions.
    pub fn decoding<'a>(&'a self, all: &'a [usize]) -> Decoding<'a> {
        Decoding {
            name: "patchscope",
            key: "patchscope",
            positions: self.positions(all),
            scale: &self.best_scale,
            tokens: &self.top_tokens,
            null: &self.null_tokens,
            relevance: self.relevance(all),
        }
    }
}

impl Measure for Patchscope {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "patchscope",
        name: "the patchscope",
        axis: "relevant tokens of the patchscope",
        ink: Ink::Patchscope,
    });

    const UNITS: &[(&str, &str)] = &[
        ("patchscope.best_scale", "multiples of expected_norm"),
        ("patchscope.top_tokens.score", "mean probability over the prompts"),
        ("patchscope.null_tokens.score", "mean probability over the prompts"),
        ("patchscope.token_relevance", "share of the top tokens, 0 to 1"),
        ("patchscope.token_relevance_null", "share of the top tokens, 0 to 1"),
        ("patchscope.token_relevance_others", "share of the top tokens, 0 to 1"),
        ("patchscope.in_base.best_scale", "multiples of expected_norm"),
        ("patchscope.in_base.top_tokens.score", "mean probability over the prompts"),
        ("patchscope.in_base.token_relevance", "share of the top tokens, 0 to 1"),
        ("patchscope.token_relevance_p", "share of null directions at least as relevant"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.patchscope.enabled
    }

    fn needs(settings: &DiffSection) -> Needs {
        Needs { embedder: settings.patchscope.scales.len() > 1, ..Needs::default() }
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let directions = 4 * settings.patchscope_positions().len() + settings.null_directions;
        let patched = directions * settings.patchscope.scales.len() * WORDS.len();
        Work { patched: patched as f64 * (1.0 - share_read(settings, n_layers)), ..Work::default() }
    }

    /// Patchscope of difference, baselines and null; the base's mean is decoded in the base model. And the tokens of
    /// difference and baselines at every scale.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let Reading { settings, means, layer, interrupt, .. } = reading;
        let (tokenizer, section, k) =
            (&reading.inputs.pretrained.tokenizer, &settings.patchscope, settings.top_k);
        let place = |p: &usize| settings.positions.iter().position(|q| q == p);
        let places: Vec<usize> = settings.patchscope_positions().iter().filter_map(place).collect();
        let of = |rows: &[Vec<f32>]| -> Vec<Vec<f32>> { places.iter().map(|i| rows[*i].clone()).collect() };
        let (difference, tuned, base) = (of(&means.difference), of(&means.tuned), of(&means.base));
        let positions = difference.len();
        // Baselines and null are of use only where relevance is judged.
        let (of_tuned, of_base, null) = match reading.prepared.lexicon {
            Some(_) => (&tuned[..], &base[..], &reading.null[..]),
            None => (&[][..], &[][..], &[][..]),
        };
        let runs = (2 * positions + of_tuned.len() + of_base.len() + null.len()) * section.scales.len();
        let bar = progress::bar("patchscope", runs as u64);

        let in_tuned: Vec<Vec<f32>> = [&difference[..], of_tuned, null].concat();
        let mut decoded = IdentityPrompts::new(reading.inputs.tuned, tokenizer, *layer)?.decode(
            &in_tuned,
            reading.eta(),
            section,
            k,
            &bar,
            interrupt,
        )?;
        let in_base = IdentityPrompts::new(reading.inputs.base, tokenizer, *layer)?.decode(
            &[&difference[..], of_base].concat(),
            reading.eta(),
            section,
            k,
            &bar,
            interrupt,
        )?;
        bar.finish_and_clear();
        decoded.extend(in_base);
        let (chosen, selector) = choose_scales(reading, decoded)?;

        let (difference, rest) = chosen.split_at(positions);
        let (of_tuned, rest) = rest.split_at(of_tuned.len());
        let (of_null, rest) = rest.split_at(null.len());
        let (in_base, of_base) = rest.split_at(positions);
        let scales = |of: &[AtScales]| of.iter().map(|d| section.scales[d.best]).collect::<Vec<f64>>();
        let tokens = |of: &[AtScales]| -> Vec<Vec<TopToken>> {
            of.iter().map(|d| reading.named(&d.tops[d.best])).collect()
        };
        let score = |of: &[AtScales]| reading.relevances(of.iter().map(|d| &d.tops[d.best]));
        let top_tokens = tokens(difference);
        let read = Patchscope {
            positions: section.positions.clone(),
            best_scale: scales(difference),
            scale_selector: selector.into(),
            token_relevance_others: reading.relevance_to_others(&top_tokens),
            in_base: DecodedTokens {
                best_scale: scales(in_base),
                top_tokens: tokens(in_base),
                token_relevance: score(in_base),
            },
            top_tokens,
            ..Patchscope::default()
        };
        let lines = |variant: DecodedMean, of: &[AtScales]| -> Vec<Decoded> {
            let at = |position: usize, scale: f64, top: &Top| Decoded {
                position,
                variant,
                scale: Some(scale),
                tokens: reading.unjudged(top),
            };
            let of_position = |(&p, d): (&usize, &AtScales)| -> Vec<_> {
                section.scales.iter().zip(&d.tops).map(|(s, top)| at(p, *s, top)).collect()
            };
            settings.patchscope_positions().iter().zip(of).flat_map(of_position).collect()
        };
        let mut decoded_lines = lines(DecodedMean::Difference, difference);
        if reading.prepared.lexicon.is_none() {
            found.write_lines(FILE, &decoded_lines)?;
            return Ok(Some(read));
        }
        decoded_lines.extend(lines(DecodedMean::Base, of_base));
        decoded_lines.extend(lines(DecodedMean::Tuned, of_tuned));
        found.write_lines(FILE, &decoded_lines)?;
        let null = Null(score(of_null));
        let difference = score(difference);
        Ok(Some(Patchscope {
            null_tokens: tokens(&of_null[..positions.min(of_null.len())]),
            token_relevance_null: vec![null.mean(); positions],
            token_relevance_null_interval: vec![null.interval(); positions],
            token_relevance_p: difference.iter().map(|d| null.p(*d)).collect(),
            token_relevance: TokenRelevance { difference, base: score(of_base), tuned: score(of_tuned) },
            ..read
        }))
    }

    fn columns(record: Option<&Self>, places: &ColumnPlaces, row: &mut Columns) {
        let at = record.map_or(places.measured, |scope| scope.positions(places.measured));
        let found = record.and_then(|scope| scope.relevance(places.measured));
        row.relevance("patchscope", places.all, at, found, false);
        let scales = record.map_or(&[][..], |scope| &scope.best_scale);
        row.spread("patchscope_best_scale", places.all, at, scales);
    }

    /// Mean share of relevant tokens over positions.
    fn scores(&self) -> Vec<Score> {
        relevance_score("patchscope", "the patchscope", &self.token_relevance.difference, &self.top_tokens)
    }

    fn figures(&self, positions: &[usize]) -> Vec<Plot> {
        self.relevance(positions).map(|found| found.plot(Ink::Patchscope)).into_iter().collect()
    }

    fn trace(&self, positions: &[usize]) -> Option<TraceReading> {
        self.relevance(positions)?.trace()
    }
}

/// The scale of each direction, and the rule for it in words.
///
/// # Errors
/// If there is a choice and the embedder fails.
pub fn choose_scales(reading: &Reading, decoded: Vec<Vec<Top>>) -> Result<(Vec<AtScales>, &'static str)> {
    Ok(match reading.settings.patchscope.scales.len() {
        1 => (decoded.into_iter().map(|tops| AtScales { best: 0, tops }).collect(), ONLY_SCALE),
        _ => (select_scales(decoded, &|id| reading.token(id), reading.embedder()?)?, SELECTOR),
    })
}

/// What a direction decodes to at each scale.
pub struct AtScales {
    /// Index of the chosen scale.
    pub best: usize,
    /// Best tokens at each scale, best first.
    pub tops: Vec<Top>,
}

/// The identity prompts in one model.
pub struct IdentityPrompts<'a> {
    view: View<'a>,
    layer: usize,
    /// Ids of each prompt, the `?` last.
    prompts: Vec<Vec<u32>>,
    /// Keys and values of each prompt without its last token.
    prefixes: Vec<KvCache>,
}

impl<'a> IdentityPrompts<'a> {
    /// Runs the prompts up to their last token.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(view: View<'a>, tokenizer: &Tokenizer, layer: usize) -> Result<Self> {
        let (mut prompts, mut prefixes) = (Vec::new(), Vec::new());
        for words in WORDS {
            let text = words.iter().map(|w| format!("{w} -> {w}\n")).collect::<String>() + "?";
            let ids = tokenizer.encode(text, true).map_err(|e| anyhow!(e))?.get_ids().to_vec();
            let prefix = &ids[..ids.len() - 1];
            let mut cache = KvCache::new(view.model.n_layers());
            let segments = Segments::new(vec![prefix.len()]);
            let mut hook = NoHook;
            let mut pass = Pass { cache: Some(&mut cache), ..Pass::new(&segments, view.adapter, &mut hook) };
            let x = view.model.embed(prefix, &pass)?;
            view.model.run(x, 0..view.model.n_layers(), &mut pass)?;
            prefixes.push(cache);
            prompts.push(ids);
        }
        Ok(Self { view, layer, prompts, prefixes })
    }

    /// Decodes each direction at each scale: `[direction][scale]` top `k`.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn decode(
        &self,
        directions: &[Vec<f32>],
        eta: f64,
        settings: &PatchscopeSection,
        k: usize,
        bar: &ProgressBar,
        interrupt: &Interrupt,
    ) -> Result<Vec<Vec<Top>>> {
        let patches: Vec<Vec<f32>> = directions
            .iter()
            .flat_map(|v| {
                let unit = factor_to(eta, v);
                settings.scales.iter().map(move |s| v.iter().map(|x| (*x as f64 * unit * s) as f32).collect())
            })
            .collect();
        let mut tops = Vec::with_capacity(patches.len());
        let rows = LOGIT_BYTES / (4 * self.view.model.vocab_size() * self.prompts.len());
        for chunk in patches.chunks(rows.clamp(BATCH, 4 * BATCH)) {
            check_interrupt(interrupt)?;
            let logits =
                (0..self.prompts.len()).map(|p| self.next_logits(p, chunk)).collect::<Result<Vec<_>>>()?;
            let vocab = self.view.model.vocab_size();
            let found: Vec<Top> = (0..chunk.len())
                .into_par_iter()
                .map(|i| {
                    let rows: Vec<&[f32]> = logits.iter().map(|l| &l[i * vocab..(i + 1) * vocab]).collect();
                    intersect(&rows, settings.intersection, k)
                })
                .collect();
            tops.extend(found);
            bar.inc(chunk.len() as u64);
        }
        Ok(tops.chunks(settings.scales.len()).map(<[Top]>::to_vec).collect())
    }

    /// Final logits at the last token of a prompt for each patch, `patches · vocab` values.
    pub fn next_logits(&self, prompt: usize, patches: &[Vec<f32>]) -> Result<Vec<f32>> {
        let model = self.view.model;
        let past = self.prompts[prompt].len() - 1;
        let segments = Segments::with_past(vec![1; patches.len()], vec![past; patches.len()]);
        let mut cache = self.prefixes[prompt].select(&vec![0; patches.len()]);
        let mut hook = NoHook;
        let mut pass = Pass { cache: Some(&mut cache), ..Pass::new(&segments, self.view.adapter, &mut hook) };
        let x = to_tensor(patches, model)?; // (patches, hidden)
        let x = model.run(x, self.layer + 1..model.n_layers(), &mut pass)?;
        let z = model.logits(&model.final_norm(&x, &pass)?, self.view.adapter)?; // (patches, vocab)
        Ok(z.flatten_all()?.to_vec1::<f32>()?)
    }
}

/// Mean probability over the prompts of the tokens that are among the `keep` likeliest for every prompt.
fn intersect(rows: &[&[f32]], keep: usize, k: usize) -> Top {
    let vocab = rows[0].len();
    let mut score = vec![0f32; vocab];
    let mut inside = vec![true; vocab];
    for row in rows {
        let mut copy = row.to_vec();
        let at = vocab - keep.clamp(1, vocab);
        let threshold = *copy.select_nth_unstable_by(at, f32::total_cmp).1;
        copy.copy_from_slice(row);
        softmax(&mut copy);
        for (((s, inside), z), p) in score.iter_mut().zip(&mut inside).zip(*row).zip(&copy) {
            *inside &= *z >= threshold;
            *s += p / rows.len() as f32;
        }
    }
    for (s, inside) in score.iter_mut().zip(&inside) {
        if !inside {
            *s = -1.0;
        }
    }
    largest(&score, k).into_iter().map(|i| (i, score[i as usize] as f64)).filter(|(_, s)| *s >= 0.0).collect()
}

/// Chooses the scale of each direction by the coherence of its words.
///
/// # Errors
/// If the embedder fails.
pub fn select_scales(
    decoded: Vec<Vec<Top>>,
    text: &dyn Fn(u32) -> String,
    embedder: &Embedder,
) -> Result<Vec<AtScales>> {
    let word = |id: u32| one_word(&text(id));
    let mut words: BTreeMap<u32, Option<String>> = BTreeMap::new();
    for (id, _) in decoded.iter().flatten().flatten() {
        words.entry(*id).or_insert_with(|| word(*id));
    }
    let distinct: Vec<&String> = {
        let mut distinct: Vec<&String> = words.values().flatten().collect();
        distinct.sort();
        distinct.dedup();
        distinct
    };
    let texts: Vec<&str> = distinct.iter().map(|w| w.as_str()).collect();
    let embedded: BTreeMap<&str, Vec<f32>> = texts.iter().copied().zip(embedder.embed(&texts)?).collect();

    let coherence = |top: &Top| -> f64 {
        let mut set: Vec<&str> = top.iter().filter_map(|(id, _)| words[id].as_deref()).collect();
        let share = set.len() as f64 / top.len().max(1) as f64;
        set.sort();
        set.dedup(); // "Cake" and " cake" are one word, not two that agree
        if set.len() < 5 {
            return -1.0;
        }
        let (mut sum, mut pairs) = (0f64, 0usize);
        for (i, a) in set.iter().enumerate() {
            for b in &set[..i] {
                sum += embedded[a].iter().zip(&embedded[b]).map(|(x, y)| (*x * *y) as f64).sum::<f64>();
                pairs += 1;
            }
        }
        sum / pairs as f64 * share
    };
    Ok(decoded
        .into_iter()
        .map(|tops| {
            let mut best = 0;
            let mut highest = f64::NEG_INFINITY;
            for (i, top) in tops.iter().enumerate() {
                let c = coherence(top);
                if c > highest {
                    (best, highest) = (i, c);
                }
            }
            AtScales { best, tops }
        })
        .collect())
}
