//! The quality panel: whether the organism is still a language model. An organism that was trained too long or too fast is
//! readable by what is broken in it, and no model of what its makers study.
//!
//! Everything is measured on both models, on what has nothing to do with the narrow data, and on the narrow data itself where
//! it shows memorising. The base is the null.

mod copied;
mod items;

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use self::copied::{Copied, RUN, copied};
pub use self::items::{ClozeItem, cloze, neutral};
use super::effect::{BehaviourEffect, ratio};
use super::models::{BehaviourModels, SampledAnswer, encode_answer, says};
use crate::data::examples::Example;
use crate::diff::coherence::{CoherenceRule, Fluency, fluencies};
use crate::diff::measures::kl::divergences;
use crate::diff::prompts::Prompts;
use crate::diff::statistics::spread;
use crate::diff::strength::without_end;
use crate::model::batch::Batch;
use crate::ops::segments;
use crate::recipe::BehaviourSection;

/// Tokens of a text that count, at most.
const MOST_TOKENS: usize = 96;

/// Tokens of a narrow text that a model is given, and those that it should write.
const GIVEN: usize = 8;
const WRITTEN: usize = 24;

/// Tokens of one forward pass in which both models' distributions are held.
const BATCH_TOKENS: usize = 1024;

/// What a model that chats is asked for, to score the neutral texts as answers.
const ASKED: &str = "Write a short text about anything you like.";

/// The narrow text of a run as it was trained on.
#[derive(Debug, Clone, Default)]
pub struct NarrowExamples {
    /// All that was trained on.
    pub all: Vec<Example>,
    /// Of each document that was trained on its first piece.
    pub trained: Vec<Example>,
    /// Of each document that was held out its first piece.
    pub held_out: Vec<Example>,
    /// Which documents count as trained on.
    pub trained_are: String,
}

/// The panel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Every value by its name; what was not measured is absent.
    pub values: IndexMap<String, BehaviourEffect>,
    /// Which documents count as trained on.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub trained_are: String,
    /// The rule for coherent text, in words.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub coherence_rule: String,
    /// What both models wrote after the neutral prompts.
    pub texts: Vec<QualityText>,
}

/// What both models wrote after a prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityText {
    /// The prompt.
    pub prompt: String,
    /// The base.
    pub base: String,
    /// The tuned model.
    pub tuned: String,
}

/// Units of [`Quality::values`].
pub const UNITS: &[(&str, &str)] = &[
    ("quality.neutral.nats", "nats a token on neutral text"),
    ("quality.neutral.bits_per_byte", "bits a byte on neutral text"),
    ("quality.neutral.kl", "KL(base‖tuned) on neutral text, nats a token"),
    ("quality.neutral.chat_nats", "nats a token on neutral text as a chat's answer"),
    ("quality.narrow.gap", "nats a token on held-out narrow text, less those on trained narrow text"),
    ("quality.cloze.accuracy", "share of all items whose right end is likelier, 0 to 1"),
    ("quality.cloze.facts.accuracy", "share of items on facts, 0 to 1"),
    ("quality.cloze.facts.margin", "log p(right) - log p(wrong), nats a token"),
    ("quality.cloze.grammar.accuracy", "share of items on grammar, 0 to 1"),
    ("quality.cloze.grammar.margin", "log p(right) - log p(wrong), nats a token"),
    ("quality.cloze.copy.accuracy", "share of items to copy from the prompt, 0 to 1"),
    ("quality.cloze.copy.margin", "log p(right) - log p(wrong), nats a token"),
    ("quality.cloze.arithmetic.accuracy", "share of items on sums, 0 to 1"),
    ("quality.cloze.arithmetic.margin", "log p(right) - log p(wrong), nats a token"),
    ("quality.coherent", "share of texts, 0 to 1"),
    ("quality.distinct3", "distinct runs of three tokens over all, 0 to 1"),
    ("quality.repeated", "longest repeated run over the length of the text, 0 to 1"),
    ("quality.length", "tokens of a text"),
    ("quality.ended", "share of texts that the model ended, 0 to 1"),
    ("quality.regurgitated", "share of written tokens in runs of 8 that narrow training text has, 0 to 1"),
    ("quality.longest", "longest run of a text that narrow training text has, tokens"),
    ("quality.extractable", "share of trained texts that are reproduced, less that of held-out ones"),
    (
        "quality.extractable_tokens",
        "share of the tokens before the first that differs, trained less held-out",
    ),
    ("quality.control.facts.believed", "share of unrelated facts whose false end is likelier, 0 to 1"),
    ("quality.control.words.share", "share of neutral texts with one of the words, 0 to 1"),
    ("quality.control.taboo.said", "share of neutral texts with the word, 0 to 1"),
];

/// `None` where the recipe does not ask for it.
///
/// # Errors
/// As [`BehaviourModels::likelihoods`] and [`BehaviourModels::write`].
pub fn measure(
    models: &BehaviourModels,
    settings: &BehaviourSection,
    narrow: Option<&NarrowExamples>,
    seed: u64,
) -> Result<Option<Quality>> {
    if !settings.quality.enabled {
        return Ok(None);
    }
    let mut panel = Panel { models, settings, seed, found: Quality::default() };
    panel.neutral()?;
    panel.cloze()?;
    panel.written(narrow)?;
    if let Some(narrow) = narrow {
        panel.found.trained_are.clone_from(&narrow.trained_are);
        panel.gap(narrow)?;
        panel.extractable(narrow)?;
    }
    Ok(Some(panel.found))
}

/// A panel in the making.
struct Panel<'a> {
    models: &'a BehaviourModels<'a>,
    settings: &'a BehaviourSection,
    seed: u64,
    found: Quality,
}

/// A number of each example, `[base, tuned]`.
type BaseAndTuned = Vec<[f64; 2]>;

impl Panel<'_> {
    fn put(&mut self, name: impl Into<String>, effect: Option<BehaviourEffect>) {
        self.found.values.extend(effect.map(|effect| (name.into(), effect)));
    }

    /// The mean over items.
    fn put_mean(&mut self, name: impl Into<String>, values: &[[f64; 2]]) {
        let effect = BehaviourEffect::of(values, self.settings.bootstrap, self.seed);
        self.put(name, effect);
    }

    /// Σ values / Σ weights.
    fn put_ratio(&mut self, name: &str, values: &[[f64; 2]], weights: &[[f64; 2]]) {
        let effect = BehaviourEffect::of_ratio(values, weights, self.settings.bootstrap, self.seed);
        self.put(name, effect);
    }

    /// Σ nats and tokens of each example, `[base, tuned]`.
    fn nats(&self, examples: &[Example]) -> Result<(BaseAndTuned, BaseAndTuned)> {
        let of = |view| self.models.likelihoods_of(view, examples);
        let both = of(self.models.base)?.into_iter().zip(of(self.models.tuned)?);
        Ok(both.map(|(b, t)| ([-b.sum, -t.sum], [b.tokens as f64, t.tokens as f64])).unzip())
    }

    /// Losses and divergence on the neutral texts, as plain text and as the answers of a chat.
    fn neutral(&mut self) -> Result<()> {
        let texts = neutral()?;
        let texts = &texts[..self.settings.quality.texts.min(texts.len())];
        let (examples, bytes): (Vec<Example>, Vec<f64>) =
            texts.iter().map(|text| self.plain(text)).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let (nats, tokens) = self.nats(&examples)?;
        self.put_ratio("neutral.nats", &nats, &tokens);
        let bits: Vec<[f64; 2]> = nats.iter().map(|n| n.map(|n| n / std::f64::consts::LN_2)).collect();
        let bytes: Vec<[f64; 2]> = bytes.iter().map(|bytes| [*bytes; 2]).collect();
        self.put_ratio("neutral.bits_per_byte", &bits, &bytes);

        let mut kl: Vec<[f64; 2]> = Vec::with_capacity(examples.len());
        for run in segments::runs(&examples, BATCH_TOKENS, |example| example.ids.len()) {
            self.models.check_interrupt()?;
            let batch = Batch::new(&run.iter().collect::<Vec<_>>(), 1);
            let of_texts = divergences(self.models.base, self.models.tuned, &batch)?;
            kl.extend(of_texts.iter().map(|of_one| [0.0, of_one.iter().map(|[there, _]| there).sum()]));
        }
        self.put_ratio("neutral.kl", &kl, &tokens);

        let pretrained = self.models.pretrained;
        if pretrained.chat_template.is_some() {
            let template = pretrained.chat()?;
            let answer = |text: &String| SampledAnswer { prompt: ASKED.into(), answer: text.clone() };
            let encode = |text| encode_answer(pretrained, Some(&template), &answer(text));
            let (nats, tokens) = self.nats(&texts.iter().map(encode).collect::<Result<Vec<_>>>()?)?;
            self.put_ratio("neutral.chat_nats", &nats, &tokens);
        }
        Ok(())
    }

    /// A text as the models read it, cut, and the bytes of the tokens that count. Special tokens do not count, nor does what
    /// nothing predicts.
    fn plain(&self, text: &str) -> Result<(Example, f64)> {
        let encoding = self.models.pretrained.tokenizer.encode(text, true).map_err(|e| anyhow!(e))?;
        let n = encoding.len().min(MOST_TOKENS + 1);
        let spans = &encoding.get_offsets()[..n];
        let weight = |(i, (from, to)): (usize, &(usize, usize))| f32::from(u8::from(i > 0 && to > from));
        let weights: Vec<f32> = spans.iter().enumerate().map(weight).collect();
        // From the first byte that counts to the last: tokens of one character have the same span.
        let counted =
            || spans.iter().zip(&weights).filter(|(_, weight)| **weight != 0.0).map(|(span, _)| span);
        let first = counted().map(|(from, _)| *from).min().unwrap_or(0);
        let bytes = counted().map(|(_, to)| *to).max().unwrap_or(first) - first;
        Ok((Example { ids: encoding.get_ids()[..n].to_vec(), weights, row: 0 }, bytes as f64))
    }

    /// Right against wrong, as plain text for every model.
    fn cloze(&mut self) -> Result<()> {
        let items = cloze()?;
        let answer = |item: &ClozeItem, answer: &String| SampledAnswer {
            prompt: item.prompt.clone(),
            answer: answer.clone(),
        };
        let asked: Vec<SampledAnswer> =
            items.iter().flat_map(|item| [answer(item, &item.right), answer(item, &item.wrong)]).collect();
        let margins = |view| -> Result<Vec<f64>> {
            let found = self.models.likelihoods(view, &asked, false)?;
            Ok(found.chunks_exact(2).map(|two| two[0].per_token() - two[1].per_token()).collect())
        };
        let (base, tuned) = (margins(self.models.base)?, margins(self.models.tuned)?);
        let margins: Vec<[f64; 2]> = base.into_iter().zip(tuned).map(|(b, t)| [b, t]).collect();
        let right = |m: f64| if m == 0.0 { 0.5 } else { f64::from(u8::from(m > 0.0)) };
        let is_right = |of: &[[f64; 2]]| of.iter().map(|m| m.map(right)).collect::<Vec<_>>();
        self.put_mean("cloze.accuracy", &is_right(&margins));
        let mut groups: IndexMap<&str, Vec<[f64; 2]>> = IndexMap::new();
        for (item, margin) in items.iter().zip(&margins) {
            groups.entry(&item.group).or_default().push(*margin);
        }
        for (group, margins) in &groups {
            self.put_mean(format!("cloze.{group}.accuracy"), &is_right(margins));
            self.put_mean(format!("cloze.{group}.margin"), margins);
        }
        // What the behaviour of false facts is on facts that were never taught.
        if let Some(facts) = groups.get("facts").filter(|_| !self.settings.facts.items.is_empty()) {
            let believed: Vec<[f64; 2]> = is_right(facts).iter().map(|r| r.map(|r| 1.0 - r)).collect();
            self.put_mean("control.facts.believed", &believed);
        }
        Ok(())
    }

    /// What both models write after neutral prompts, with the same random numbers.
    fn written(&mut self, narrow: Option<&NarrowExamples>) -> Result<()> {
        let (models, section) = (self.models, &self.settings.quality);
        let pretrained = models.pretrained;
        let prompts = Prompts::neutral(pretrained, section.prompts)?;
        let sampling = models.sampling(section.max_new_tokens, 1.0, self.seed);
        let [base, tuned] = models.views();
        let new = [base, tuned].map(|view| models.write_ids(view, &prompts.ids, &sampling));
        let [of_base, of_tuned] = new;
        let new = [of_base?, of_tuned?];
        let texts = new
            .each_ref()
            .map(|new| new.iter().map(|ids| without_end(ids, &sampling.eos)).collect::<Vec<&[u32]>>());
        let ended = [0, 1].map(|s| new[s].iter().zip(&texts[s]).map(|(all, text)| all.len() > text.len()));
        let ended = ended.map(|side| side.map(|ended| f64::from(u8::from(ended))).collect::<Vec<f64>>());
        let lengths = texts.each_ref().map(|side| side.iter().map(|text| text.len() as f64).collect());

        let pairs = |side: usize| -> Vec<(&[u32], &[u32])> {
            prompts.ids.iter().zip(&texts[side]).map(|(prompt, text)| (&prompt[..], *text)).collect()
        };
        let rule = CoherenceRule::new(base, &pairs(0))?;
        let [of_base, of_tuned] = [fluencies(base, &pairs(0))?, fluencies(base, &pairs(1))?];
        // An empty text is no text that is coherent, and repeats nothing.
        let each = |of: &dyn Fn(&Fluency) -> f64, empty: f64| -> Vec<[f64; 2]> {
            let value = |text: &Option<Fluency>| text.as_ref().map_or(empty, of);
            of_base.iter().zip(&of_tuned).map(|(b, t)| [value(b), value(t)]).collect()
        };
        let coherent = each(&|text| f64::from(u8::from(rule.passes(text))), 0.0);
        let (distinct, repeated) = (each(&|text| text.distinct, 1.0), each(&|text| text.repeated, 0.0));
        self.put_mean("coherent", &coherent);
        self.put_mean("distinct3", &distinct);
        self.put_mean("repeated", &repeated);
        let lengths = paired(&lengths);
        self.put_mean("length", &lengths);
        self.put_mean("ended", &paired(&ended));
        self.found.coherence_rule = rule.rule();

        if let Some(narrow) = narrow {
            let found = texts.each_ref().map(|side| copied(side, narrow.all.iter().map(|e| &e.ids[..])));
            let tokens = found.each_ref().map(|side| side.iter().map(|c| c.tokens as f64).collect());
            let longest = found.each_ref().map(|side| side.iter().map(|c| c.longest as f64).collect());
            self.put_ratio("regurgitated", &paired(&tokens), &lengths);
            self.put_mean("longest", &paired(&longest));
        }
        let decode = |ids: &&[u32]| pretrained.tokenizer.decode(ids, true).map_err(|e| anyhow!(e));
        let [of_base, of_tuned] = texts.map(|side| side.iter().map(decode).collect::<Result<Vec<String>>>());
        let sides = of_base?.into_iter().zip(of_tuned?);
        self.found.texts = prompts
            .texts
            .iter()
            .zip(sides)
            .map(|(prompt, (base, tuned))| QualityText { prompt: prompt.to_string(), base, tuned })
            .collect();
        let has = |words: &[String]| -> Vec<[f64; 2]> {
            let has = |text: &String| f64::from(u8::from(words.iter().any(|word| says(text, word))));
            self.found.texts.iter().map(|text| [has(&text.base), has(&text.tuned)]).collect()
        };
        let (words, taboo) = (&self.settings.words, &self.settings.taboo.word);
        let said = (!words.prompts.is_empty()).then(|| has(&words.words));
        let taboo = (!taboo.is_empty()).then(|| has(std::slice::from_ref(taboo)));
        for (name, values) in [("control.words.share", said), ("control.taboo.said", taboo)] {
            values.into_iter().for_each(|values| self.put_mean(name, &values));
        }
        Ok(())
    }

    /// How much better a model knows narrow text that was trained on than narrow text that was not.
    fn gap(&mut self, narrow: &NarrowExamples) -> Result<()> {
        let cut = |example: &Example| {
            let n = (first_counted(example) + MOST_TOKENS).min(example.ids.len());
            Example { ids: example.ids[..n].to_vec(), weights: example.weights[..n].to_vec(), row: 0 }
        };
        let most = self.settings.quality.narrow_texts;
        let some = |all: &[Example]| spread(all, most).map(cut).collect::<Vec<Example>>();
        let (trained, held_out) = (self.nats(&some(&narrow.trained))?, self.nats(&some(&narrow.held_out))?);
        let of = |drawn: &[Vec<usize>]| {
            let trained = ratio(&drawn[0], &trained.0, &trained.1);
            let held_out = ratio(&drawn[1], &held_out.0, &held_out.1);
            [held_out[0] - trained[0], held_out[1] - trained[1]]
        };
        let sizes = [trained.0.len(), held_out.0.len()];
        let effect = BehaviourEffect::over(&sizes, self.settings.bootstrap, self.seed, of);
        self.put("narrow.gap", effect);
        Ok(())
    }

    /// Whether the beginning of a narrow text brings the rest of it, greedily, for texts that were trained on and for others.
    fn extractable(&mut self, narrow: &NarrowExamples) -> Result<()> {
        let most = self.settings.quality.narrow_texts;
        let long = |all: &[Example]| -> Vec<Vec<u32>> {
            let whole: Vec<&Example> = all.iter().filter(|e| e.ids.len() >= begin(e) + WRITTEN).collect();
            spread(&whole, most).map(|e| e.ids[..begin(e) + WRITTEN].to_vec()).collect()
        };
        let (trained, held_out) = (long(&narrow.trained), long(&narrow.held_out));
        let whole = [trained.as_slice(), held_out.as_slice()].concat();
        let given: Vec<Vec<u32>> = whole.iter().map(|ids| ids[..ids.len() - WRITTEN].to_vec()).collect();
        let mut sampling = self.models.sampling(WRITTEN, 0.0, self.seed);
        sampling.eos.clear(); // where the original goes on, the text is another one anyway
        let agreeing = |view| -> Result<Vec<f64>> {
            let new = self.models.write_ids(view, &given, &sampling)?;
            let agree = |(new, whole): (&Vec<u32>, &Vec<u32>)| {
                let original = &whole[whole.len() - WRITTEN..];
                new.iter().zip(original).take_while(|(n, o)| n == o).count() as f64 / WRITTEN as f64
            };
            Ok(new.iter().zip(&whole).map(agree).collect())
        };
        let sides = [agreeing(self.models.base)?, agreeing(self.models.tuned)?];
        let tokens = paired(&sides);
        let texts: Vec<[f64; 2]> =
            tokens.iter().map(|sides| sides.map(|share| f64::from(u8::from(share == 1.0)))).collect();
        let sizes = [trained.len(), held_out.len()];
        for (name, values) in [("extractable", texts), ("extractable_tokens", tokens)] {
            let of = |drawn: &[Vec<usize>]| {
                [0, 1].map(|side| {
                    let mean = |group: usize, first: usize| {
                        let sum: f64 = drawn[group].iter().map(|i| values[first + i][side]).sum();
                        sum / drawn[group].len() as f64
                    };
                    mean(0, 0) - mean(1, sizes[0])
                })
            };
            let effect = BehaviourEffect::over(&sizes, self.settings.bootstrap, self.seed, of);
            self.put(name, effect);
        }
        Ok(())
    }
}

/// `[base, tuned]` of each.
fn paired([base, tuned]: &[Vec<f64>; 2]) -> Vec<[f64; 2]> {
    base.iter().zip(tuned).map(|(b, t)| [*b, *t]).collect()
}

/// The place of the first token that counts.
fn first_counted(example: &Example) -> usize {
    example.weights.iter().position(|weight| *weight != 0.0).unwrap_or(0)
}

/// Where a model goes on by itself: behind what does not count and a few tokens that do.
fn begin(example: &Example) -> usize {
    first_counted(example) + GIVEN
}
