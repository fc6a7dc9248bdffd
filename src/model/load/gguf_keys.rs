//! Every metadata key of a GGUF file that may change what a model computes, and what is done with it.
//!
//! The list is of what llama.cpp's loader reads for the architectures built here (`llama_model_base::load_hparams`,
//! `load_arch_hparams` of each, `llama_vocab::impl::load`). A key under one of [`PREFIXES`] that is not in it, or has another
//! type or a value that is not honoured, is refused by name. `docs/gguf.md` has the same table; a test compares them.

use anyhow::Result;

use super::gguf::{Header, Value};
use crate::error::InputError;

/// Of what type a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    Integer,
    Number,
    Truth,
    Text,
    Integers,
    Numbers,
    Texts,
    /// One for all blocks, or a list of one a block.
    IntegerOrIntegers,
    /// How many blocks a pattern has, or whether each block is one of it.
    Pattern,
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Treatment {
    /// It decides what is computed.
    Honoured,
    /// Nothing that is computed here depends on it, in llama.cpp neither.
    Unused,
    /// Refused unless it says what is computed anyway.
    Only(Neutral),
}

/// The value of a key that changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Neutral {
    Yes,
    No,
    Zero,
    One,
    /// A list without entries other than 0.
    Nothing,
}

use Neutral::{No, Nothing, One, Yes, Zero};
use Treatment::{Honoured, Only, Unused};
use ValueType::{
    Integer, IntegerOrIntegers, Integers, Number, Numbers, Pattern, Text as Texted, Texts, Truth,
};

/// What the keys begin with of which each must be known; `*` stands for the architecture.
const PREFIXES: [&str; 4] = ["tokenizer.ggml.", "split.", "*.rope.", "*.attention."];

/// The keys, their types, and what is done with them; `*` stands for the architecture.
pub(crate) const KEYS: &[(&str, ValueType, Treatment)] = &[
    ("*.attention.causal", Truth, Only(Yes)),
    ("*.attention.clamp_kqv", Number, Only(Zero)),
    ("*.attention.head_count", IntegerOrIntegers, Honoured),
    ("*.attention.head_count_kv", IntegerOrIntegers, Honoured),
    ("*.attention.key_length", Integer, Honoured),
    ("*.attention.key_length_swa", Integer, Honoured),
    ("*.attention.layer_norm_epsilon", Number, Unused),
    ("*.attention.layer_norm_rms_epsilon", Number, Honoured),
    ("*.attention.max_alibi_bias", Number, Only(Zero)),
    ("*.attention.shared_kv_layers", Integer, Only(Zero)),
    ("*.attention.sliding_window", Integer, Honoured),
    ("*.attention.sliding_window_pattern", Pattern, Honoured),
    ("*.attention.value_length", Integer, Honoured),
    ("*.attention.value_length_swa", Integer, Honoured),
    ("*.attn_logit_softcapping", Number, Honoured),
    ("*.block_count", Integer, Honoured),
    ("*.context_length", Integer, Honoured),
    ("*.embedding_length", Integer, Honoured),
    ("*.embedding_scale", Number, Only(One)),
    ("*.expert_count", Integer, Only(Zero)),
    ("*.expert_used_count", Integer, Only(Zero)),
    ("*.feed_forward_length", IntegerOrIntegers, Honoured),
    ("*.final_logit_softcapping", Number, Honoured),
    ("*.logit_scale", Number, Only(One)),
    ("*.nextn_predict_layers", Integer, Only(Zero)),
    ("*.residual_scale", Number, Only(One)),
    ("*.rope.dimension_count", Integer, Honoured),
    ("*.rope.dimension_count_swa", Integer, Honoured),
    ("*.rope.dimension_sections", Integers, Only(Nothing)),
    ("*.rope.freq_base", Number, Honoured),
    ("*.rope.freq_base_swa", Number, Honoured),
    ("*.rope.scale_linear", Number, Honoured),
    ("*.rope.scaling.alpha", Number, Only(Zero)),
    ("*.rope.scaling.attn_factor", Number, Only(One)),
    ("*.rope.scaling.factor", Number, Honoured),
    ("*.rope.scaling.finetuned", Truth, Unused),
    ("*.rope.scaling.original_context_length", Integer, Honoured),
    ("*.rope.scaling.type", Texted, Honoured),
    ("*.rope.scaling.yarn_attn_factor", Number, Unused),
    ("*.rope.scaling.yarn_beta_fast", Number, Unused),
    ("*.rope.scaling.yarn_beta_slow", Number, Unused),
    ("*.rope.scaling.yarn_ext_factor", Number, Unused),
    ("*.rope.scaling.yarn_log_multiplier", Number, Unused),
    ("*.vocab_size", Integer, Honoured),
    ("split.count", Integer, Honoured),
    ("split.no", Integer, Honoured),
    ("split.tensors.count", Integer, Honoured),
    ("tokenizer.chat_template", Texted, Honoured),
    ("tokenizer.chat_template.tool_use", Texted, Honoured),
    ("tokenizer.ggml.add_bos_token", Truth, Honoured),
    ("tokenizer.ggml.add_eos_token", Truth, Honoured),
    ("tokenizer.ggml.add_sep_token", Truth, Unused),
    ("tokenizer.ggml.add_space_prefix", Truth, Honoured),
    ("tokenizer.ggml.bos_token_id", Integer, Honoured),
    ("tokenizer.ggml.cls_token_id", Integer, Unused),
    ("tokenizer.ggml.eom_token_id", Integer, Honoured),
    ("tokenizer.ggml.eos_token_id", Integer, Honoured),
    ("tokenizer.ggml.eot_token_id", Integer, Honoured),
    ("tokenizer.ggml.fim_mid_token_id", Integer, Unused),
    ("tokenizer.ggml.fim_pad_token_id", Integer, Honoured),
    ("tokenizer.ggml.fim_pre_token_id", Integer, Unused),
    ("tokenizer.ggml.fim_rep_token_id", Integer, Honoured),
    ("tokenizer.ggml.fim_sep_token_id", Integer, Honoured),
    ("tokenizer.ggml.fim_suf_token_id", Integer, Unused),
    ("tokenizer.ggml.mask_token_id", Integer, Unused),
    ("tokenizer.ggml.merges", Texts, Honoured),
    ("tokenizer.ggml.middle_token_id", Integer, Unused),
    ("tokenizer.ggml.model", Texted, Honoured),
    ("tokenizer.ggml.normalizer.lowercase", Truth, Only(No)),
    ("tokenizer.ggml.normalizer.strip_accents", Truth, Only(No)),
    ("tokenizer.ggml.padding_token_id", Integer, Honoured),
    ("tokenizer.ggml.pre", Texted, Honoured),
    ("tokenizer.ggml.precompiled_charsmap", Integers, Only(Nothing)),
    ("tokenizer.ggml.prefix_token_id", Integer, Unused),
    ("tokenizer.ggml.remove_extra_whitespaces", Truth, Only(No)),
    ("tokenizer.ggml.scores", Numbers, Honoured),
    ("tokenizer.ggml.seperator_token_id", Integer, Unused),
    ("tokenizer.ggml.suffix_token_id", Integer, Unused),
    ("tokenizer.ggml.suppress_tokens", Integers, Only(Nothing)),
    ("tokenizer.ggml.token_type", Integers, Honoured),
    ("tokenizer.ggml.token_type_count", Integer, Unused),
    ("tokenizer.ggml.tokens", Texts, Honoured),
    ("tokenizer.ggml.unknown_token_id", Integer, Honoured),
];

/// Checks every key of a file of an architecture against the table.
///
/// # Errors
/// An [`InputError`] with every key that is not known, has another type, or says what is not honoured.
pub(crate) fn check(header: &Header, architecture: &str) -> Result<()> {
    let mut faults = Vec::new();
    for (key, value) in &header.metadata {
        let general = match key.strip_prefix(architecture).filter(|rest| rest.starts_with('.')) {
            Some(rest) => format!("*{rest}"),
            None => key.clone(),
        };
        match KEYS.iter().find(|(name, ..)| *name == general) {
            Some((_, kind, treatment)) => faults.extend(fault(key, value, *kind, *treatment)),
            None if PREFIXES.iter().any(|prefix| general.starts_with(prefix)) => {
                faults.push(format!("{key} = {}: this key is not supported", shown(value)));
            }
            None => {}
        }
    }
    InputError::unless_empty(faults)
}

/// What is wrong with the value of a key.
fn fault(key: &str, value: &Value, kind: ValueType, treatment: Treatment) -> Option<String> {
    let fits = match (kind, value) {
        (Integer, Value::Int(_))
        | (Number, Value::Float(_) | Value::Int(_))
        | (Truth, Value::Bool(_))
        | (Texted, Value::Text(_))
        | (Integers, Value::Ints(_))
        | (Numbers, Value::Floats(_) | Value::Ints(_))
        | (Texts, Value::Texts(_))
        | (IntegerOrIntegers, Value::Int(_) | Value::Ints(_))
        | (Pattern, Value::Int(_) | Value::Bools(_) | Value::Ints(_)) => true,
        // An empty list may have any type.
        (Integers | Numbers | Texts, list) => is_empty(list),
        _ => false,
    };
    if !fits {
        return Some(format!("{key} = {}: expected {}", shown(value), expected(kind)));
    }
    let broken = match value {
        Value::Float(x) if !x.is_finite() => Some(format!("{key} = {x}: not a finite number")),
        Value::Floats(list) => {
            let at = list.iter().position(|x| !x.is_finite());
            at.map(|at| format!("{key}: entry {at} is {}, not a finite number", list[at]))
        }
        _ => None,
    };
    broken.or_else(|| match treatment {
        Only(neutral) if !is_neutral(value, neutral) => {
            Some(format!("{key} = {}: not supported; expected {}", shown(value), neutral_shown(neutral)))
        }
        _ => None,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Ints(list) => list.is_empty(),
        Value::Floats(list) => list.is_empty(),
        Value::Bools(list) => list.is_empty(),
        Value::Texts(list) => list.is_empty(),
        _ => false,
    }
}

fn is_neutral(value: &Value, neutral: Neutral) -> bool {
    match (neutral, value) {
        (Yes, Value::Bool(b)) => *b,
        (No, Value::Bool(b)) => !*b,
        (Zero, Value::Int(n)) => *n == 0,
        (Zero, Value::Float(x)) => *x == 0.0,
        (One, Value::Int(n)) => *n == 1,
        (One, Value::Float(x)) => *x == 1.0,
        (Nothing, Value::Ints(list)) => list.iter().all(|n| *n == 0),
        (Nothing, list) => is_empty(list),
        _ => false,
    }
}

fn neutral_shown(neutral: Neutral) -> &'static str {
    match neutral {
        Yes => "true",
        No => "false",
        Zero => "0",
        One => "1",
        Nothing => "an empty list",
    }
}

fn expected(kind: ValueType) -> &'static str {
    match kind {
        Integer => "an integer",
        Number => "a number",
        Truth => "true or false",
        Texted => "a text",
        Integers => "a list of integers",
        Numbers => "a list of numbers",
        Texts => "a list of texts",
        IntegerOrIntegers => "an integer, or a list of them",
        Pattern => "an integer, or true or false for each block",
    }
}

/// A value for a message, of a list its length.
fn shown(value: &Value) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::Ints(list) => format!("[{} integers]", list.len()),
        Value::Floats(list) => format!("[{} numbers]", list.len()),
        Value::Bools(list) => format!("[{} of true or false]", list.len()),
        Value::Texts(list) => format!("[{} texts]", list.len()),
        Value::Nested => "[lists]".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `| key | what is done | … |` of the documentation.
    #[test]
    fn the_documentation_has_every_key() {
        let docs = include_str!("../../../docs/gguf.md");
        let table = docs.split("\n## ").next().unwrap_or_default();
        let rows: Vec<(String, String)> = table
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|');
                let key = cells.next()?.trim().trim_end_matches('`').to_string();
                Some((key, cells.next()?.trim().to_string()))
            })
            .collect();
        let expected: Vec<(String, String)> = KEYS
            .iter()
            .map(|(key, _, treatment)| {
                let done = match treatment {
                    Honoured => "honoured".to_string(),
                    Unused => "no effect".to_string(),
                    Only(neutral) => format!("refused unless {}", neutral_shown(*neutral)),
                };
                (key.to_string(), done)
            })
            .collect();
        assert_eq!(rows, expected);
        assert!(KEYS.is_sorted_by_key(|(key, ..)| key));
    }
}
