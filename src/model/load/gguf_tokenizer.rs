//! Rebuilds a tokenizer from the metadata of a GGUF file.
//!
//! A GGUF file holds a vocabulary, token kinds and sometimes merges, not a `tokenizer.json`. What is
//! missing (normaliser, pre-tokeniser, decoder) follows from `tokenizer.ggml.model` and `.pre`. The rules
//! are those of llama.cpp (`llama_vocab::impl::load`), and of the tokenizers of the models that it means by
//! these names. The reader of transformers 5.24 (`integrations/gguf/gguf_tokenizer_mapping.py`) differs: it
//! knows no rule for `smollm`, cuts control tokens with letters that GPT-2's alphabet lacks (DeepSeek's), adds no beginning token for `llama-bpe`, merges what Llama 3 has as a token,
//! and drops Qwen2's NFC. A name that is not known here is refused, since its split would be a guess.

use std::collections::HashSet;

use anyhow::{Context, Result, anyhow, bail};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Tokenizer};

use super::gguf;
use super::gguf::Header;
use crate::limits::LONGEST_TOKEN;

/// Kinds of tokens in `tokenizer.ggml.token_type`.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// SentencePiece's mark for a space.
const SPACE_MARK: &str = "\u{2581}";

/// Ends of turns and texts by which llama.cpp knows that a generation is over, where the vocabulary has them.
const ENDS: [&str; 14] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<EOT>",
    "[EOT]",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

/// Ends that the text of any model may hold, so that only a control token is one.
const END_IF_CONTROL: [&str; 2] = ["</s>", "<EOT>"];

/// How byte-level text is split before it is merged.
struct Split {
    /// Each match is a piece; in this order, and then as GPT-2 splits where `is_gpt2` says so.
    patterns: &'static [&'static str],
    is_gpt2: bool,
    /// Whether every number is a piece of its own before.
    single_digits: bool,
    /// Whether a piece that is a token is not merged.
    ignore_merges: bool,
    /// Whether text begins with the beginning token where the file does not say.
    add_bos: bool,
    /// Whether text is composed (NFC) before.
    compose: bool,
}

const GPT2: Split = Split {
    patterns: &[],
    is_gpt2: true,
    single_digits: false,
    ignore_merges: false,
    add_bos: false,
    compose: false,
};

/// The split that llama.cpp means by a name in `tokenizer.ggml.pre`.
fn split(pre: &str) -> Option<Split> {
    let of = |pattern: &'static [&'static str]| Split { patterns: pattern, is_gpt2: false, ..GPT2 };
    Some(match pre {
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
        | "jina-v5-nano" => Split { ignore_merges: true, add_bos: true, ..of(&[LLAMA3_SPLIT]) },
        "dbrx" | "smaug-bpe" => of(&[LLAMA3_SPLIT]),
        "tekken" => Split { ignore_merges: true, add_bos: true, ..of(&[TEKKEN_SPLIT]) },
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" => {
            Split { compose: true, ..of(&[QWEN2_SPLIT]) }
        }
        "stablelm2" | "hunyuan" | "solar-open" => of(&[QWEN2_SPLIT]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => Split { single_digits: true, ..GPT2 },
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "gigachat" | "a.x-4.0"
        | "mellum" | "modern-bert" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" => {
            GPT2
        }
        _ => return None,
    })
}

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The special tokens that a GGUF file names.
#[derive(Debug, Default)]
pub(crate) struct GgufSpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    /// Ids that end a generation, the end-of-sequence token first.
    pub end_ids: Vec<u32>,
}

/// The tokenizer that a GGUF file describes, and its special tokens.
///
/// # Errors
/// If the metadata is incomplete or contradicts itself, or the tokenizer is of an unknown kind.
pub(crate) fn build(header: &Header) -> Result<(Tokenizer, GgufSpecialTokens)> {
    let tokens = header
        .texts("tokenizer.ggml.tokens")
        .context("tokenizer.ggml.tokens is missing or not a list of texts")?;
    let kind = header.text("tokenizer.ggml.model").context("tokenizer.ggml.model is missing")?;
    let architecture = header.text("general.architecture").unwrap_or_default();

    let mut seen = HashSet::new();
    if let Some(twice) = tokens.iter().find(|token| !seen.insert(token.as_str())) {
        bail!("tokenizer.ggml.tokens: {twice:?} is listed twice");
    }
    if let Some(long) = tokens.iter().find(|token| token.len() > LONGEST_TOKEN) {
        bail!("tokenizer.ggml.tokens: a token of {} bytes; expected at most {LONGEST_TOKEN}", long.len());
    }
    let named = header.text("tokenizer.ggml.pre");
    let split = match (kind, named) {
        ("gpt2", None) => bail!(
            "tokenizer.ggml.pre is missing: how the model's tokenizer splits text is not known; convert the model again, or \
             use its Hugging Face folder"
        ),
        ("gpt2", Some(pre)) => split(pre).with_context(|| {
            format!(
                "tokenizer.ggml.pre = {pre:?} is not supported; use the model's Hugging Face folder (\"default\" means that \
                 the converter did not know it)"
            )
        })?,
        _ => GPT2,
    };
    let mut tokenizer = match kind {
        "gpt2" => byte_level(header, tokens, &split)?,
        "llama" if architecture.starts_with("gemma") => gemma(header, tokens)?,
        "llama" => sentencepiece(header, tokens)?,
        other => bail!("tokenizers of kind {other:?} cannot be rebuilt (gpt2 and llama can)"),
    };
    add_tokens(&mut tokenizer, header, tokens)?;

    let special = special_tokens(header, tokens)?;
    // What a file does not say, its kind of vocabulary does.
    let add_bos = header.boolean("tokenizer.ggml.add_bos_token").unwrap_or(kind == "llama" || split.add_bos);
    let add_eos = header.boolean("tokenizer.ggml.add_eos_token").unwrap_or(false);
    let added = |add: bool, key: &str| -> Result<Option<(u32, &str)>> {
        match token_id(header, key, tokens)? {
            None if add => bail!("text gets the token of tokenizer.ggml.{key}, but that key is missing"),
            token => Ok(token.filter(|_| add)),
        }
    };
    tokenizer.with_post_processor(Some(template(
        added(add_bos, "bos_token_id")?,
        added(add_eos, "eos_token_id")?,
    )?));
    Ok((tokenizer, special))
}

/// Byte-level BPE, as GPT-2, SmolLM2, Qwen and Llama 3 use it.
fn byte_level(header: &Header, tokens: &[String], split: &Split) -> Result<Tokenizer> {
    let alphabet = ByteAlphabet::new();
    // What stays whole is written as it stands in a text, the others in the byte alphabet.
    let kinds = kinds(header, tokens)?;
    let is_whole = |id: usize| kinds.get(id).is_some_and(|kind| [CONTROL, USER_DEFINED].contains(kind));
    let spelled = |id: usize, token: &str| match is_whole(id) {
        true => token.to_string(),
        false => alphabet.respell(token),
    };
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, token)| (spelled(id, token), id as u32)).collect();
    let merges = stated_merges(header, &vocab)?
        .context("tokenizer.ggml.merges is missing (byte-level BPE needs it)")?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(String::new())
        .ignore_merges(split.ignore_merges)
        .build()
        .map_err(|e| anyhow!("the vocabulary and the merges do not fit: {e}"))?;

    let mut tokenizer = Tokenizer::new(model);
    if split.compose {
        tokenizer
            .with_normalizer(Some(part::<NormalizerWrapper>(json!({"type": "NFC"}))?))
            .map_err(|e| anyhow!(e))?;
    }
    let mut steps: Vec<Value> = split
        .patterns
        .iter()
        .map(|regex| {
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
        })
        .collect();
    if split.single_digits {
        steps.push(json!({"type": "Digits", "individual_digits": true}));
    }
    steps.push(json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split.is_gpt2
    }));
    tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(
        json!({"type": "Sequence", "pretokenizers": steps}),
    )?));
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
    )?));
    Ok(tokenizer)
}

/// Gemma's SentencePiece vocabulary. Runs of spaces are stored as spaces, and the merge order is the
/// order of the vocabulary, not that of the scores.
fn gemma(header: &Header, tokens: &[String]) -> Result<Tokenizer> {
    let vocab: Vocab = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| {
            let is_blank = token.contains(' ') && token.trim().is_empty();
            let spelled = if is_blank { SPACE_MARK.repeat(token.chars().count()) } else { token.clone() };
            (spelled, id as u32)
        })
        .collect();
    let merges = match stated_merges(header, &vocab)? {
        Some(merges) => merges,
        None => implied_merges(&vocab, |id| -f64::from(id)),
    };
    let unknown = token_id(header, "unknown_token_id", tokens)?.map(|(_, token)| token);
    let mut model = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.to_string());
    }
    let model = model.build().map_err(|e| anyhow!("the vocabulary and the merges do not fit: {e}"))?;

    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(spaces_marked(
            header.boolean("tokenizer.ggml.add_space_prefix") == Some(true),
        )?))
        .map_err(|e| anyhow!(e))?
        .with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false
        }))?))
        .with_decoder(Some(part::<DecoderWrapper>(json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]}))?));
    Ok(tokenizer)
}

/// Every space as its mark; with one in front of the text, and of what follows a special token, where `prefix` says so.
fn spaces_marked(prefix: bool) -> Result<NormalizerWrapper> {
    let marked = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK});
    match prefix {
        true => part(json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE_MARK}, marked
        ]})),
        false => part(marked),
    }
}

/// The SentencePiece vocabulary of Llama 2 and its kin: merges in the order of the scores.
fn sentencepiece(header: &Header, tokens: &[String]) -> Result<Tokenizer> {
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let merges = match stated_merges(header, &vocab)? {
        Some(merges) => merges,
        None => {
            let scores = match header.metadata.get("tokenizer.ggml.scores") {
                Some(gguf::Value::Floats(scores)) if scores.len() == tokens.len() => scores,
                Some(gguf::Value::Ints(scores)) if scores.len() == tokens.len() => {
                    &scores.iter().map(|&score| score as f64).collect()
                }
                _ => bail!("tokenizer.ggml.scores must be a list of one number a token"),
            };
            implied_merges(&vocab, |id| scores[id as usize])
        }
    };
    let unknown = token_id(header, "unknown_token_id", tokens)?.map(|(_, token)| token);
    let mut model = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.to_string());
    }
    let model = model.build().map_err(|e| anyhow!("the vocabulary and the merges do not fit: {e}"))?;
    let prefix = header.boolean("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(spaces_marked(prefix)?))
        .map_err(|e| anyhow!(e))?
        .with_decoder(Some(part::<DecoderWrapper>(json!({"type": "Sequence", "decoders": decoders}))?));
    Ok(tokenizer)
}

/// The merges that the file lists.
fn stated_merges(header: &Header, vocab: &Vocab) -> Result<Option<Merges>> {
    let Some(merges) = header.texts("tokenizer.ggml.merges") else {
        return Ok(None);
    };
    let mut joined = String::new();
    merges
        .iter()
        .enumerate()
        .map(|(rank, merge)| {
            let (left, right) = merge
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .with_context(|| format!("merge {rank} ({merge:?}) is not a pair"))?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            // Checked here because the builder of tokenizers 0.23 panics on a result that is longer
            // than every token.
            if !vocab.contains_key(&joined) {
                bail!("merge {rank} ({merge:?}) makes a token that the vocabulary lacks");
            }
            Ok((left.to_string(), right.to_string()))
        })
        .collect::<Result<_>>()
        .map(Some)
}

/// Every way to cut a token into two tokens, best-scored token first, longest left part first.
fn implied_merges(vocab: &Vocab, score: impl Fn(u32) -> f64 + Sync) -> Merges {
    let mut tokens: Vec<(&str, u32)> = vocab.iter().map(|(t, &id)| (t.as_str(), id)).collect();
    tokens.sort_by_key(|&(_, id)| id);
    // A stable sort: equal scores stay in the order of the vocabulary, as in transformers. Parts of
    // equal score and left length are then ordered by the right length, which their sum fixes.
    tokens.par_sort_by(|a, b| score(b.1).total_cmp(&score(a.1)));
    let mut merges: Vec<(usize, (String, String))> = tokens
        .par_iter()
        .enumerate()
        .flat_map_iter(|(order, &(token, _))| {
            token.char_indices().skip(1).collect::<Vec<_>>().into_iter().rev().filter_map(move |(cut, _)| {
                let (left, right) = token.split_at(cut);
                let both = vocab.contains_key(left) && vocab.contains_key(right);
                both.then(|| (order, (left.to_string(), right.to_string())))
            })
        })
        .collect();
    // Tokens of equal score are one group in transformers, ordered by the lengths of their parts.
    let group_ends = |i: usize, j: usize| score(tokens[i].1) != score(tokens[j].1);
    for group in merges.chunk_by_mut(|a, b| !group_ends(a.0, b.0)) {
        let first = group.first().map(|m| m.0);
        if group.last().map(|m| m.0) != first {
            group.sort_by_key(|(_, (left, right))| {
                std::cmp::Reverse((left.chars().count(), right.chars().count()))
            });
        }
    }
    merges.into_iter().map(|(_, merge)| merge).collect()
}

/// Makes the tokens that must stay whole known to the tokenizer: control tokens as special ones,
/// user-defined ones as plain ones.
fn add_tokens(tokenizer: &mut Tokenizer, header: &Header, tokens: &[String]) -> Result<()> {
    let kinds = kinds(header, tokens)?;
    let of_kind = |kind| tokens.iter().zip(kinds).filter(move |&(_, &k)| k == kind).map(|(token, _)| token);
    let mut special: Vec<AddedToken> =
        of_kind(CONTROL).map(|token| AddedToken::from(token.as_str(), true)).collect();
    let keys = [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "unknown_token_id",
        "padding_token_id",
    ];
    for key in keys {
        if let Some((_, token)) = token_id(header, key, tokens)? {
            special.push(AddedToken::from(token, true));
        }
    }
    // llama.cpp overrides the kind of these where a converter did not know it.
    special.extend(ends(tokens, kinds).map(|(_, token)| AddedToken::from(token, true)));
    // Gemma's runs of spaces are spelled with marks, and need no match of their own.
    let plain: Vec<AddedToken> = of_kind(USER_DEFINED)
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token.as_str(), false).normalized(false))
        .collect();
    tokenizer
        .add_special_tokens(special)
        .and_then(|_| tokenizer.add_tokens(plain))
        .map_err(|e| anyhow!("cannot add the special tokens: {e}"))?;
    Ok(())
}

/// The kind of each token, as the file has them; none of a file that has none.
fn kinds<'h>(header: &'h Header, tokens: &[String]) -> Result<&'h [i64]> {
    match header.metadata.get("tokenizer.ggml.token_type") {
        Some(gguf::Value::Ints(kinds)) if kinds.len() == tokens.len() => Ok(kinds),
        Some(gguf::Value::Ints(kinds)) => {
            bail!("tokenizer.ggml.token_type has {} entries for {} tokens", kinds.len(), tokens.len())
        }
        _ => Ok(&[]),
    }
}

/// The tokens of the vocabulary that end a generation by their text alone, by id.
fn ends<'t>(tokens: &'t [String], kinds: &'t [i64]) -> impl Iterator<Item = (u32, &'t str)> {
    tokens.iter().enumerate().filter_map(|(id, token)| {
        let counts = !END_IF_CONTROL.contains(&token.as_str()) || kinds.get(id) == Some(&CONTROL);
        (ENDS.contains(&token.as_str()) && counts).then_some((id as u32, token.as_str()))
    })
}

/// The token under `tokenizer.ggml.<key>`; of a SentencePiece vocabulary without the key the one that llama.cpp takes.
fn token_id<'t>(header: &Header, key: &str, tokens: &'t [String]) -> Result<Option<(u32, &'t str)>> {
    let is_sentencepiece = header.text("tokenizer.ggml.model") == Some("llama");
    let usual = match key {
        "unknown_token_id" => Some(0),
        "bos_token_id" => Some(1),
        "eos_token_id" => Some(2),
        _ => None,
    };
    let usual = usual.filter(|&id| is_sentencepiece && id < tokens.len() as u64);
    let Some(id) = header.integer(&format!("tokenizer.ggml.{key}")).or(usual) else {
        return Ok(None);
    };
    let token = usize::try_from(id).ok().and_then(|id| tokens.get(id)).with_context(|| {
        format!("tokenizer.ggml.{key} is {id}, the vocabulary has {} tokens", tokens.len())
    })?;
    Ok(Some((id as u32, token)))
}

fn special_tokens(header: &Header, tokens: &[String]) -> Result<GgufSpecialTokens> {
    let bos = token_id(header, "bos_token_id", tokens)?;
    let eos = token_id(header, "eos_token_id", tokens)?;
    let mut end_ids: Vec<u32> = eos.iter().map(|(id, _)| *id).collect();
    for key in ["eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"] {
        end_ids.extend(token_id(header, key, tokens)?.map(|(id, _)| id));
    }
    end_ids.extend(ends(tokens, kinds(header, tokens)?).map(|(id, _)| id));
    let mut seen = HashSet::new();
    end_ids.retain(|id| seen.insert(*id));
    Ok(GgufSpecialTokens {
        bos: bos.map(|(_, token)| token.to_string()),
        eos: eos.map(|(_, token)| token.to_string()),
        pad: token_id(header, "padding_token_id", tokens)?.map(|(_, token)| token.to_string()),
        end_ids,
    })
}

/// The post-processor that puts the beginning token before, and the end token after, each sequence.
fn template(bos: Option<(u32, &str)>, eos: Option<(u32, &str)>) -> Result<PostProcessorWrapper> {
    let mut pieces = Vec::new();
    let mut pair = Vec::new();
    for (sequence, type_id) in [("A", 0), ("B", 1)] {
        let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        pair.extend(bos.map(|(_, token)| special(token)));
        pair.push(json!({"Sequence": {"id": sequence, "type_id": type_id}}));
        pair.extend(eos.map(|(_, token)| special(token)));
        if type_id == 0 {
            pieces = pair.clone();
        }
    }
    let tokens: serde_json::Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, token)| {
            let entry = json!({"id": token, "ids": [id], "tokens": [token]});
            (token.to_string(), entry)
        })
        .collect();
    part(json!({
        "type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": tokens
    }))
}

/// A part of a tokenizer from the JSON that `tokenizer.json` would hold.
fn part<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).context("cannot build a part of the tokenizer")
}

/// GPT-2's spelling of the 256 bytes as printable characters.
struct ByteAlphabet {
    spelling: [char; 256],
}

impl ByteAlphabet {
    fn new() -> Self {
        let mut spelling = ['\0'; 256];
        let mut next = 256;
        for byte in 0..=255u8 {
            spelling[usize::from(byte)] = match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
                _ => {
                    let c = char::from_u32(next).unwrap_or('\0');
                    next += 1;
                    c
                }
            };
        }
        Self { spelling }
    }

    /// Whether a token consists of characters of this alphabet only.
    fn spells(&self, token: &str) -> bool {
        token.chars().all(
            |c| matches!(c, '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}' | '\u{100}'..='\u{143}'),
        )
    }

    /// A token as the vocabulary needs it: spelled in this alphabet.
    fn respell(&self, token: &str) -> String {
        if self.spells(token) {
            token.to_string()
        } else {
            token.bytes().map(|byte| self.spelling[usize::from(byte)]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected order from transformers 5.23:
    /// `generate_merges({t: i for i, t in enumerate(tokens)}, dict(zip(tokens, scores)))`.
    #[test]
    fn implied_merges_come_best_score_first_then_longest_left_part() {
        let tokens = ["a", "b", "ab", "aba", "ba", "bab"];
        let scores = [0., 0., -2., -1., -2., -2.];
        let vocab: Vocab = (0..).zip(tokens).map(|(id, t)| (t.into(), id)).collect();
        let merges = implied_merges(&vocab, |id| scores[id as usize]);
        let pairs: Vec<(&str, &str)> =
            merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
        assert_eq!(
            pairs,
            [
                // aba (-1)
                ("ab", "a"),
                ("a", "ba"),
                // ab, ba and bab share -2: by the lengths of the parts
                ("ba", "b"),
                ("b", "ab"),
                ("a", "b"),
                ("b", "a"),
            ]
        );
    }

    #[test]
    fn the_byte_alphabet_spells_every_byte_once() {
        let alphabet = ByteAlphabet::new();
        let mut spelling = alphabet.spelling.to_vec();
        assert!(alphabet.spells(&spelling.iter().collect::<String>()));
        spelling.sort();
        spelling.dedup();
        assert_eq!(spelling.len(), 256);
        assert_eq!(alphabet.respell("  "), "\u{120}\u{120}");
        assert_eq!(alphabet.respell("<think>"), "<think>");
    }
}
