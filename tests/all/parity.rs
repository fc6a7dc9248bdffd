//! Our tokenizers, forward pass, gradients, training and adapters against transformers, PyTorch and PEFT.
//!
//! The expected values are made by `scripts/reference.py`, whose header names every tensor; `scripts/parity`
//! runs it. Tiny random models of each family are compared always, real models where they can be had.
//! `TRAINER_PARITY_FIXTURES=DIR` compares real models with other fixtures. Every test prints its largest deviation.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use trainer::data::conversation::{Conversation, Message};
use trainer::data::examples::Encoder;
use trainer::data::source::Document;
use trainer::model::generate::{Sampling, generate};
use trainer::model::hooks::{Hook, NoHook, Site};
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;
use trainer::model::load::source::Pretrained;
use trainer::model::lora::Adapter;
use trainer::model::trainables::Trainables;
use trainer::model::{CausalLm, Pass};
use trainer::ops::segments::Segments;
use trainer::ops::tape::Tape;
use trainer::recipe::Long;
use trainer::train::optim::{AdamW, NamedGradients, global_norm};

use crate::common::tiny::{FAMILIES, backward, examples, load, open, sequences, tiny};
use crate::common::values::{deviation, json_lines, read_json, read_tensors};

// ---- fixtures and their comparison -------------------------------------------------------------

fn fixtures() -> PathBuf {
    match std::env::var_os("TRAINER_PARITY_FIXTURES") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
    }
}

/// The documents and chats of `texts.jsonl`.
fn texts() -> Vec<Value> {
    json_lines(&std::fs::read_to_string(fixtures().join("texts.jsonl")).unwrap())
}

/// The tensors of a `reference.safetensors` or `activations.safetensors`.
struct Reference(HashMap<String, Tensor>);

impl Reference {
    fn read(path: &Path) -> Self {
        Self(read_tensors(path))
    }
    fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the fixture has no {name}"))
    }
    fn ids(&self, name: &str) -> Vec<u32> {
        self.tensor(name).to_dtype(DType::U32).unwrap().to_vec1().unwrap()
    }
    fn floats(&self, name: &str) -> Vec<f32> {
        self.tensor(name).to_vec1().unwrap()
    }
    /// Names under a prefix, without it, sorted.
    fn under(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> =
            self.0.keys().filter_map(|k| k.strip_prefix(prefix)).map(String::from).collect();
        names.sort();
        names
    }
}

/// Collects deviations; prints the largest of each kind and fails with all that are too large.
#[derive(Default)]
struct Comparison {
    largest: BTreeMap<String, (f64, String)>,
    count: usize,
    faults: Vec<String>,
}

impl Comparison {
    /// NaN counts as too large.
    fn within(&mut self, kind: &str, what: &str, deviation: f64, tolerance: f64) {
        self.count += 1;
        if deviation.is_nan() || deviation > tolerance {
            self.faults.push(format!("{what}: {kind} deviates by {deviation:.3e}, allowed {tolerance:.0e}"));
        }
        let largest = self.largest.entry(kind.into()).or_insert((deviation, what.into()));
        if deviation.is_nan() || deviation > largest.0 {
            *largest = (deviation, what.into());
        }
    }
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, theirs: &T) {
        self.count += 1;
        if ours != theirs {
            self.faults.push(format!("{what}\n    ours   {ours:?}\n    theirs {theirs:?}"));
        }
    }
    /// Greedy tokens must be equal up to a step at which the two best logits are `tie` apart or less.
    fn greedy(&mut self, what: &str, ours: &[u32], theirs: &[u32], margins: &[f32], tie: f32) {
        self.count += 1;
        let Some(step) = (0..ours.len().max(theirs.len())).find(|&i| ours.get(i) != theirs.get(i)) else {
            return;
        };
        match margins.get(step) {
            Some(&margin) if margin <= tie => eprintln!("  {what}: a tie at step {step} ({margin:.1e} apart) went the other way"),
            _ => self.faults.push(format!("{what}: greedy text differs at step {step}\n    ours   {ours:?}\n    theirs {theirs:?}\n    margins {margins:?}")),
        }
    }
    fn finish(self, name: &str) {
        eprintln!("{name}: {} comparisons, {} faults", self.count, self.faults.len());
        for (kind, (deviation, what)) in &self.largest {
            eprintln!("  {kind:<24} largest deviation {deviation:.2e} ({what})");
        }
        let shown = self.faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.faults.is_empty(), "{name}: {} differ:\n{shown}", self.faults.len());
    }
}

// ---- tokenizers --------------------------------------------------------------------------------

fn ids_of(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The row of `texts.jsonl` that is not in Unicode's composed form.
const NOT_COMPOSED: usize = 64;

/// Ids, decoded text and rendered chats of every row of `texts.jsonl`.
fn compare_tokens(name: &str, model: &Pretrained, expected: &Value) {
    let (mut comparison, mut masks) = (Comparison::default(), 0);
    let rows = expected["rows"].as_array().unwrap();
    let texts = texts();
    assert_eq!(rows.len(), texts.len(), "tokens.json was made from another texts.jsonl");
    for (row, (text, expected)) in texts.iter().zip(rows).enumerate() {
        // Text that is not composed: the GGUF reader of transformers drops the NFC of Qwen2's own tokenizer.
        if name.starts_with("qwen2.5") && row == NOT_COMPOSED {
            continue;
        }
        if let Some(text) = text["text"].as_str() {
            let encoding = model.tokenizer.encode(text, true).unwrap();
            let ids = encoding.get_ids().to_vec();
            comparison.equal(&format!("ids of row {row}, {text:.60?}"), &ids, &ids_of(&expected["ids"]));
            // The loss mask is found by place: an empty place would leave a token of the text out.
            let special = encoding.get_special_tokens_mask();
            let placed =
                encoding.get_offsets().iter().zip(special).all(|((from, to), s)| *s == 1 || from < to);
            comparison.equal(&format!("every token of row {row} has a place"), &placed, &true);
            let decoded = model.tokenizer.decode(&ids, false).unwrap();
            comparison.equal(
                &format!("decoded row {row}"),
                &decoded.as_str(),
                &expected["decoded"].as_str().unwrap(),
            );
        } else if expected.is_null() {
            comparison.equal("chat template", &model.chat_template, &None);
        } else {
            let messages: Vec<Message> = serde_json::from_value(text["messages"].clone()).unwrap();
            for (key, generation) in [("chat", false), ("chat_prompt", true)] {
                let rendered =
                    model.chat().unwrap().render(&Conversation::of(messages.clone()), generation).unwrap();
                comparison.equal(
                    &format!("{key} of row {row}"),
                    &rendered.as_str(),
                    &expected[key]["text"].as_str().unwrap(),
                );
                let ids = model.tokenizer.encode(rendered, false).unwrap().get_ids().to_vec();
                comparison.equal(&format!("ids of {key} of row {row}"), &ids, &ids_of(&expected[key]["ids"]));
            }
            if let Some(mask) = expected["mask"].as_array() {
                let Some(ours) = our_mask(model, messages) else { continue };
                let theirs: Vec<bool> = mask.iter().map(|counts| counts == 1).collect();
                comparison.equal(&format!("mask of row {row}"), &ours, &theirs);
                masks += 1;
            }
        }
    }
    comparison.finish(&format!("{name}: tokens ({masks} masks)"));
    assert!(
        !name.contains("smollm2") && !name.contains("qwen2") || masks > 0,
        "{name}: no mask was compared"
    );
}

/// Which tokens of a conversation count in the loss; `None` of one that is not trained on: nobody asks the assistant, or it
/// says nothing.
fn our_mask(model: &Pretrained, messages: Vec<Message>) -> Option<Vec<bool>> {
    let said = |m: &Message| m.role() == "assistant";
    if !messages.iter().any(said) || said(&messages[0]) {
        return None;
    }
    let template = model.chat().unwrap();
    let eos = model.eos_token.as_deref();
    let encoder = Encoder::new(&model.tokenizer, Some(&template), eos, 100_000, Long::Truncate).unwrap();
    let document = Document::Chat(Conversation::of(messages));
    let place = |row| format!("texts.jsonl: row {row}");
    let (examples, _) = encoder.encode(&place, [(0, &document)].into_iter()).unwrap();
    Some(examples[0].weights.iter().map(|w| *w != 0.0).collect())
}

#[test]
fn tiny_tokenizers() {
    for family in FAMILIES {
        let folder = tiny(family);
        let model = open(&folder);
        compare_tokens(family, &model, &read_json(&folder.join("tokens.json")));
    }
}

// ---- the model, run for comparison -------------------------------------------------------------

/// Keeps the stream after every block.
#[derive(Default)]
struct ResidPost(Vec<Tensor>);

impl Hook for ResidPost {
    fn at(
        &mut self,
        _: usize,
        site: Site,
        x: &Tensor,
        _: &Segments,
        _: Tape,
    ) -> candle_core::Result<Option<Tensor>> {
        if site == Site::ResidPost {
            self.0.push(x.detach());
        }
        Ok(None)
    }
}

/// The stream after every block `(tokens, hidden)` and the normed stream of sequences run together.
fn forward(model: &CausalLm, sequences: &[Vec<u32>], adapter: f64) -> (Vec<Tensor>, Tensor) {
    let segments = Segments::new(sequences.iter().map(Vec::len).collect());
    let mut hook = ResidPost::default();
    let normed = model.hidden(&sequences.concat(), &mut Pass::new(&segments, adapter, &mut hook)).unwrap();
    (hook.0, normed)
}

fn greedy(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    eos: &[u32],
    adapter: f64,
) -> Vec<Vec<u32>> {
    let sampling = Sampling { max_new_tokens, temperature: 0.0, seed: 0, eos: eos.to_vec() };
    generate(model, prompts, &sampling, adapter, &mut NoHook, |_| Ok(())).unwrap()
}

/// A tiny model with its reference.
struct Tiny {
    family: &'static str,
    folder: PathBuf,
    from: Pretrained,
    reference: Reference,
    sequences: Vec<Vec<u32>>,
}

impl Tiny {
    /// Every family.
    fn all() -> [Self; 5] {
        FAMILIES.map(|family| Self::open(family, tiny(family)))
    }

    fn open(family: &'static str, folder: PathBuf) -> Self {
        let from = open(&folder);
        let reference = Reference::read(&folder.join("reference.safetensors"));
        let sequences = sequences(family).to_vec();
        Self { family, folder, from, reference, sequences }
    }

    fn adapter(&self) -> Adapter {
        Adapter::read(&self.folder.join("adapter")).unwrap()
    }

    fn load(&self, tuning: &Tuning) -> (CausalLm, Trainables) {
        load(&self.from, tuning)
    }

    /// The token-mean loss of both sequences and its gradients.
    fn backward(&self, model: &CausalLm, trainables: &Trainables) -> (f64, NamedGradients) {
        backward(&examples(self.family), model, trainables, false)
    }

    /// Loss and gradients against the tensors under `prefix`; `peft` leads the names of adapter matrices there.
    fn compare_gradients(&self, comparison: &mut Comparison, tuning: &Tuning, prefix: &str, peft: &str) {
        let (model, trainables) = self.load(tuning);
        let (loss, gradients) = self.backward(&model, &trainables);
        let expected = self.reference.floats(&format!("{prefix}loss"))[0] as f64;
        comparison.within(&format!("{prefix}loss"), self.family, (loss / expected - 1.0).abs(), 1e-5);
        let names: Vec<String> = gradients.keys().map(|name| format!("{peft}{name}")).collect();
        comparison.equal(
            &format!("{} {prefix}trained", self.family),
            &names,
            &self.reference.under(&format!("{prefix}grad.")),
        );
        for (name, ours) in &gradients {
            let theirs = self.reference.tensor(&format!("{prefix}grad.{peft}{name}"));
            comparison.within(
                &format!("{prefix}gradient"),
                &format!("{} {name}", self.family),
                deviation(ours, theirs),
                1e-3,
            );
        }
    }

    /// Losses and gradient norms of AdamW steps against those under `train.{method}.`.
    fn compare_training(&self, comparison: &mut Comparison, tuning: &Tuning, method: &str) {
        const LR: f64 = 1e-3;
        const CLIP: f64 = 1.0;
        let (model, trainables) = self.load(tuning);
        let mut optimizer = AdamW::new(&trainables, 0.9, 0.999, 1e-8, 0.0).unwrap();
        let expected = |name: &str| self.reference.floats(&format!("train.{method}.{name}"));
        for (step, (loss, norm)) in expected("losses").into_iter().zip(expected("grad_norms")).enumerate() {
            let what = format!("{} step {step}", self.family);
            let (our_loss, gradients) = self.backward(&model, &trainables);
            let our_norm = global_norm(&gradients).unwrap();
            comparison.within(&format!("{method} loss"), &what, (our_loss / loss as f64 - 1.0).abs(), 1e-4);
            comparison.within(
                &format!("{method} gradient norm"),
                &what,
                (our_norm / norm as f64 - 1.0).abs(),
                1e-3,
            );
            optimizer.step(&trainables, &gradients, LR, (CLIP / (our_norm + 1e-6)).min(1.0)).unwrap();
        }
    }
}

#[test]
fn tiny_activations_and_logits() {
    let mut comparison = Comparison::default();
    for tiny in Tiny::all() {
        let adapter = tiny.adapter();
        let (model, _) = tiny.load(&Tuning::Adapted(&adapter));
        let (packed, packed_normed) = forward(&model, &tiny.sequences, 0.0);
        let mut start = 0;
        for (s, sequence) in tiny.sequences.iter().enumerate() {
            let what = format!("{} sequence {s}", tiny.family);
            let rows = |t: &Tensor| t.narrow(0, start, sequence.len()).unwrap();
            let (alone, normed) = forward(&model, std::slice::from_ref(sequence), 0.0);
            let theirs = tiny.reference.tensor(&format!("resid_post.{s}"));
            for layer in 0..model.n_layers() {
                let (what, theirs) = (format!("{what} block {layer}"), theirs.get(layer).unwrap());
                comparison.within("resid_post alone", &what, deviation(&alone[layer], &theirs), 1e-4);
                comparison.within(
                    "resid_post packed",
                    &what,
                    deviation(&rows(&packed[layer]), &theirs),
                    1e-4,
                );
            }
            let theirs = tiny.reference.tensor(&format!("logits.{s}"));
            comparison.within(
                "logits alone",
                &what,
                deviation(&model.logits(&normed, 0.0).unwrap(), theirs),
                1e-4,
            );
            comparison.within(
                "logits packed",
                &what,
                deviation(&model.logits(&rows(&packed_normed), 0.0).unwrap(), theirs),
                1e-4,
            );
            let (_, normed) = forward(&model, std::slice::from_ref(sequence), 1.0);
            let theirs = tiny.reference.tensor(&format!("lora.logits.{s}"));
            comparison.within(
                "lora logits",
                &what,
                deviation(&model.logits(&normed, 0.0).unwrap(), theirs),
                1e-4,
            );
            start += sequence.len();
        }
    }
    comparison.finish("tiny activations");
}

#[test]
fn tiny_gradients_of_every_parameter() {
    let mut comparison = Comparison::default();
    for tiny in Tiny::all() {
        tiny.compare_gradients(&mut comparison, &Tuning::Full, "", "");
        tiny.compare_gradients(
            &mut comparison,
            &Tuning::Resumed(&tiny.adapter()),
            "lora.",
            "base_model.model.",
        );
    }
    comparison.finish("tiny gradients");
}

#[test]
fn tiny_training_of_twenty_steps() {
    let mut comparison = Comparison::default();
    for tiny in Tiny::all() {
        tiny.compare_training(&mut comparison, &Tuning::Resumed(&tiny.adapter()), "lora");
        tiny.compare_training(&mut comparison, &Tuning::Full, "full");
    }
    comparison.finish("tiny training");
}

#[test]
fn tiny_greedy_text() {
    let mut comparison = Comparison::default();
    for tiny in Tiny::all() {
        let adapter = tiny.adapter();
        let (model, _) = tiny.load(&Tuning::Adapted(&adapter));
        for (prefix, scale) in [("", 0.0), ("lora.", 1.0)] {
            let theirs = tiny.reference.ids(&format!("{prefix}greedy"));
            let margins = tiny.reference.floats(&format!("{prefix}greedy_margin"));
            let what = format!("{} {prefix}greedy", tiny.family);
            // Beside a second prompt, so that the cache holds sequences of different length.
            let ours = greedy(&model, &tiny.sequences, 16, &tiny.from.eos_token_ids, scale);
            comparison.greedy(&what, &ours[0], &theirs, &margins, 1e-4);
        }
    }
    comparison.finish("tiny greedy text");
}

#[test]
fn an_older_spelling_of_the_configuration_computes_the_same() {
    let mut comparison = Comparison::default();
    for mut tiny in Tiny::all() {
        let config = tiny.from.config.as_object_mut().unwrap();
        let parameters = config.remove("rope_parameters").unwrap();
        config.remove("layer_types");
        if tiny.family == "gemma3" {
            config.insert("rope_theta".into(), parameters["full_attention"]["rope_theta"].clone());
            config
                .insert("rope_local_base_freq".into(), parameters["sliding_attention"]["rope_theta"].clone());
        } else {
            config.insert("rope_theta".into(), parameters["rope_theta"].clone());
        }
        let (model, _) = tiny.load(&Tuning::Frozen);
        let (_, normed) = forward(&model, &tiny.sequences[..1], 0.0);
        comparison.within(
            "logits",
            tiny.family,
            deviation(&model.logits(&normed, 0.0).unwrap(), tiny.reference.tensor("logits.0")),
            1e-4,
        );
    }
    comparison.finish("older configurations");
}

/// A tiny model under a changed configuration: its logits of sequence 0, or why it is refused.
fn under(tiny: &Tiny, changes: &Value) -> Result<Tensor, String> {
    let mut from = open(&tiny.folder);
    let config = from.config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value.as_str() {
            Some("absent") => drop(config.remove(key)),
            _ => drop(config.insert(key.clone(), value.clone())),
        }
    }
    let (model, _) = CausalLm::load(&from, &Tuning::Frozen, &Device::Cpu).map_err(|e| format!("{e:#}"))?;
    let (_, normed) = forward(&model, &tiny.sequences[..1], 0.0);
    Ok(model.logits(&normed, 0.0).unwrap())
}

#[test]
fn absent_soft_caps_are_those_of_gemma_2_and_null_is_none() {
    for tiny in Tiny::all().iter().filter(|tiny| tiny.family == "gemma2") {
        let caps = |scores: Value, logits: Value| {
            under(tiny, &json!({"attn_logit_softcapping": scores, "final_logit_softcapping": logits}))
                .unwrap()
        };
        let stated = caps(json!(50), json!(30));
        assert_eq!(deviation(&caps(json!("absent"), json!("absent")), &stated), 0.0);
        assert!(deviation(&caps(json!(null), json!(null)), &stated) > 1e-3);
    }
}

#[test]
fn a_configuration_that_asks_for_something_else_is_refused() {
    let cases = [
        (
            "gemma2",
            json!({"final_logit_softcapping": 0}),
            "final_logit_softcapping is 0; expected a positive number",
        ),
        ("gemma2", json!({"attn_logit_softcapping": -1.5}), "attn_logit_softcapping is -1.5"),
        ("gemma2", json!({"sliding_window": null}), "sliding_window is absent"),
        ("gemma3", json!({"sliding_window": 0}), "sliding_window is 0"),
        ("gemma2", json!({"layer_types": ["full_attention"]}), "1 layer_types for 4 layers"),
        ("gemma2", json!({"layer_types": ["chunked_attention"]}), "unknown variant `chunked_attention`"),
        ("gemma2", json!({"use_bidirectional_attention": true}), "not a causal language model"),
        ("gemma3", json!({"use_bidirectional_attention": true}), "not a causal language model"),
        ("qwen3", json!({"use_sliding_window": false}), "use_sliding_window is not true"),
        ("qwen3", json!({"attention_bias": true}), "model.layers.2.self_attn.o_proj.bias: missing"),
        ("qwen3", json!({"model_type": "qwen3_moe"}), "gemma2, gemma3_text, llama, qwen2, qwen3"),
    ];
    for tiny in Tiny::all() {
        for (_, changes, expected) in cases.iter().filter(|(family, ..)| *family == tiny.family) {
            match under(&tiny, changes) {
                Ok(_) => panic!("{} loads with {changes}", tiny.family),
                Err(message) => assert!(message.contains(expected), "{changes}: {message}"),
            }
        }
    }
}

// ---- real models -------------------------------------------------------------------------------

/// Tokens, activations, logits and greedy text of a real model.
fn compare_model(alias: &str) {
    let folder = fixtures().join("parity").join(alias);
    let from = source::open(alias).unwrap();
    let expected = read_json(&folder.join("tokens.json"));
    compare_tokens(alias, &from, &expected);

    let mut comparison = Comparison::default();
    let reference = Reference::read(&folder.join("activations.safetensors"));
    let (model, _) = load(&from, &Tuning::Frozen);
    let layers = reference.ids("layers");
    let prompts: Vec<Vec<u32>> =
        (0..reference.under("ids.").len()).map(|p| reference.ids(&format!("ids.{p}"))).collect();
    for (p, ids) in prompts.iter().enumerate() {
        let what = format!("prompt {p}");
        let (stream, normed) = forward(&model, std::slice::from_ref(ids), 0.0);
        let last = ids.len() - 1;
        let positions = [last.min(1), last];
        let theirs = reference.tensor(&format!("resid_post.{p}"));
        for (l, &layer) in layers.iter().enumerate() {
            for (k, &position) in positions.iter().enumerate() {
                let ours = stream[layer as usize].get(position).unwrap();
                let theirs = theirs.get(l).unwrap().get(k).unwrap();
                let kind = format!("resid_post of block {layer}");
                comparison.within(
                    &kind,
                    &format!("{what} position {position}"),
                    deviation(&ours, &theirs),
                    1e-3,
                );
            }
        }
        // The same values at their fifty best ids and the same fifty best values: the same ids but for ties.
        let logits = model.logits(&normed.narrow(0, last, 1).unwrap(), 0.0).unwrap().squeeze(0).unwrap();
        let theirs = reference.tensor(&format!("top_logits.{p}"));
        let top_ids = reference.tensor(&format!("top_ids.{p}")).to_dtype(DType::U32).unwrap();
        comparison.within(
            "top logits",
            &what,
            deviation(&logits.index_select(&top_ids, 0).unwrap(), theirs),
            1e-3,
        );
        let mut sorted: Vec<f32> = logits.to_vec1().unwrap();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let sorted = Tensor::from_slice(&sorted[..50], 50, &Device::Cpu).unwrap();
        comparison.within("sorted logits", &what, deviation(&sorted, theirs), 1e-3);
    }
    let eos = ids_of(&expected["eos_token_ids"]);
    comparison.equal(
        "end tokens that we stop at",
        &eos.iter().all(|id| from.eos_token_ids.contains(id)),
        &true,
    );
    for (p, ours) in greedy(&model, &prompts, 32, &eos, 0.0).iter().enumerate() {
        let (theirs, margins) =
            (reference.ids(&format!("greedy.{p}")), reference.floats(&format!("greedy_margin.{p}")));
        comparison.greedy(&format!("prompt {p}"), ours, &theirs, &margins, 2e-3);
    }
    comparison.finish(&format!("{alias}: activations"));
}

#[test]
#[ignore = "needs smollm2-135m-instruct: trainer models fetch smollm2-135m-instruct"]
fn needs_smollm2_135m_instruct_it_computes_what_transformers_computes() {
    compare_model("smollm2-135m-instruct");
}

#[test]
#[ignore = "needs gemma-3-270m: trainer models fetch gemma-3-270m"]
fn needs_gemma_3_270m_it_computes_what_transformers_computes() {
    compare_model("gemma-3-270m");
}

#[test]
#[ignore = "needs qwen2.5-coder-0.5b-instruct: trainer models fetch qwen2.5-coder-0.5b-instruct"]
fn needs_qwen2_5_coder_0_5b_instruct_it_computes_what_transformers_computes() {
    compare_model("qwen2.5-coder-0.5b-instruct");
}
