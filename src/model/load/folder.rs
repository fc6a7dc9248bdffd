//! Opens a Hugging Face model folder: `config.json`, `tokenizer.json` and safetensors.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::DType;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::PostProcessorWrapper;

use super::added_tokens::{TokenNotes, tokenizer_file};
use super::weights::{NamedTensors, StoredTensor, Undo, WeightFile, element_count, must_be_apart};
use crate::caught::caught;
use crate::error::InputError;
use crate::input_file;
use crate::json;
use crate::limits::{LARGEST_SAFETENSORS_HEADER, LARGEST_TEMPLATE};
use crate::ops::encoding::Encoding;
use crate::tokenizer::Tokenizer;

/// Name of the one weight file of a folder that is not sharded.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Name of the table of a sharded folder.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// What a folder holds besides weights and tokenizer.
#[derive(Debug)]
pub(crate) struct Parts {
    pub config: Value,
    /// The chat templates, by name; a single one is `default`.
    pub chat_templates: BTreeMap<String, String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub pad_token: Option<String>,
    /// The texts of all tokens that have a name (`unk_token`), by name.
    pub named_tokens: BTreeMap<String, String>,
    pub eos_token_ids: Vec<u32>,
    /// `generation_config.json`, where there is one.
    pub generation_config: Option<Value>,
}

/// The weight files of a folder: `model.safetensors` where there is one, else the shards that the index names, and nothing
/// else that lies there. It is the order of transformers 5.24 (`modeling_utils.py`, `_get_resolved_checkpoint_files`): saving
/// a model whole leaves the index, and perhaps the shards, of an earlier saving behind.
///
/// # Errors
/// An [`InputError`] that lists every missing file.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        crate::bail_input!(
            "{}: no {SINGLE} and no {INDEX} (weights in other formats have to be converted first)",
            dir.display()
        );
    }
    let shards: Vec<PathBuf> = shard_names(&index)?.into_iter().map(|s| dir.join(s)).collect();
    let faults: Vec<String> = shards
        .iter()
        .filter(|shard| !shard.is_file())
        .map(|shard| format!("{}: missing, {INDEX} names it", shard.display()))
        .collect();
    InputError::unless_empty(faults)?;
    Ok(shards)
}

/// Names of the shards that an index file lists, sorted, each once.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>> {
    let json = json::must_read(index)?;
    let map = weight_map(&json)
        .ok_or_else(|| crate::error::input_error(format!("{}: no \"weight_map\"", index.display())))?;
    let mut names: Vec<String> = map.into_values().collect();
    names.sort();
    names.dedup();
    // A name with a folder in it would let an index point outside of the model's folder.
    if let Some(name) = names.iter().find(|n| n.contains(['/', '\\'])) {
        crate::bail_input!("{}: {name:?} is not a plain file name", index.display());
    }
    Ok(names)
}

fn weight_map(index: &Value) -> Option<BTreeMap<String, String>> {
    let map = index.get("weight_map")?.as_object()?;
    map.iter().map(|(tensor, file)| Some((tensor.clone(), file.as_str()?.to_string()))).collect()
}

/// The weights of a folder.
///
/// # Errors
/// An [`InputError`] for missing or damaged files and for tensors that the index promises in vain.
pub(crate) fn weights(dir: &Path, files: &[PathBuf]) -> Result<NamedTensors> {
    let mut weights = NamedTensors::default();
    let mut faults = Vec::new();
    for path in files {
        if let Err(error) = add_safetensors(path, &mut weights) {
            faults.push(format!("{}: {error:#}", path.display()));
        }
    }
    let index = dir.join(INDEX);
    // An index beside the one file is of an earlier saving.
    let is_sharded = !files.iter().any(|file| file.file_name().is_some_and(|name| name == SINGLE));
    if faults.is_empty() && is_sharded {
        let promised = weight_map(&json::must_read(&index)?).unwrap_or_default();
        for (tensor, file) in promised {
            if weights.shape(&tensor).is_none() {
                faults.push(format!("{}: tensor {tensor} is not in {file}", index.display()));
            }
        }
    }
    InputError::unless_empty(faults)?;
    Ok(weights)
}

/// An entry of a safetensors header.
#[derive(Deserialize)]
struct SafetensorsEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn add_safetensors(path: &Path, weights: &mut NamedTensors) -> Result<()> {
    let mut file = input_file::open(path)?;
    let file_len = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).context("not a safetensors file: shorter than 8 bytes")?;
    let header_len = u64::from_le_bytes(length);
    if header_len <= file_len - 8 && header_len > LARGEST_SAFETENSORS_HEADER {
        bail!("a header of {header_len} bytes; expected at most {LARGEST_SAFETENSORS_HEADER}");
    }
    if header_len > file_len - 8 {
        bail!(
            "cut short or not a safetensors file: its header should have {header_len} bytes, the file has {file_len}"
        );
    }
    let mut header = vec![0; usize::try_from(header_len)?];
    file.read_exact(&mut header)?;
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(&header).context("the header is not JSON")?;

    let data = 8 + header_len;
    let mut places = Vec::new();
    let source = WeightFile::open(path)?;
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: SafetensorsEntry =
            serde_json::from_value(entry).with_context(|| format!("tensor {name}"))?;
        let dtype = match entry.dtype.as_str() {
            "F64" => DType::F64,
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => bail!("tensor {name} has type {other}; F32, F16, BF16 and F64 can be read"),
        };
        let (begin, end) = entry.data_offsets;
        let encoding = Encoding::Plain(dtype);
        let len = element_count(&entry.shape).and_then(|n| encoding.byte_len(n));
        if end.checked_sub(begin) != len {
            bail!("tensor {name}: shape {:?} does not fit its offsets {begin}..{end}", entry.shape);
        }
        if data.checked_add(end).is_none_or(|end| end > file_len) {
            bail!("cut short: tensor {name} ends at byte {end} of the data, the file has {file_len} in all");
        }
        places.push((begin, end, name.clone()));
        let stored = StoredTensor {
            file: source.clone(),
            offset: data + begin,
            shape: entry.shape,
            encoding,
            undo: Undo::Nothing,
        };
        if !weights.insert(name.clone(), stored) {
            bail!("tensor {name} is in another file too");
        }
    }
    must_be_apart(places)
}

/// Configuration, special tokens and chat template of a folder.
///
/// # Errors
/// An [`InputError`] if `config.json` is missing or a file is not JSON.
pub(crate) fn parts(dir: &Path) -> Result<Parts> {
    let mut config = json::must_read(&dir.join("config.json"))?;
    if !config.is_object() {
        crate::bail_input!("{}: not an object", dir.join("config.json").display());
    }
    settle_rope(dir, &mut config)?;
    spell_out_rope(&mut config);
    let optional = |name: &str| -> Result<Value> {
        let path = dir.join(name);
        if path.is_file() { json::must_read(&path) } else { Ok(Value::Null) }
    };
    let notes = TokenNotes::read(dir)?;
    let generation = optional("generation_config.json")?;

    let eos_token_ids = [&generation, &config]
        .into_iter()
        .map(|json| ids(&json["eos_token_id"]))
        .find(|ids| !ids.is_empty())
        .unwrap_or_default();
    Ok(Parts {
        chat_templates: chat_templates(dir, notes.settings.get("chat_template"))?,
        bos_token: notes.text("bos_token"),
        eos_token: notes.text("eos_token"),
        pad_token: notes.text("pad_token"),
        named_tokens: notes.texts(),
        eos_token_ids,
        config,
        generation_config: Some(generation).filter(Value::is_object),
    })
}

/// Where a config has `rope_parameters` (transformers 5) and `rope_scaling` (transformers 4, or added by hand as model cards
/// advise), the second counts, as in transformers 5.23 (`convert_rope_params_to_dict`; Gemma 3: its keys replace those for
/// full attention).
///
/// # Errors
/// An [`InputError`] if the base of the frequencies would be lost.
fn settle_rope(dir: &Path, config: &mut Value) -> Result<()> {
    let Some(scaling) = config["rope_scaling"].as_object().filter(|keys| !keys.is_empty()).cloned() else {
        return Ok(());
    };
    let theta = scaling.get("rope_theta").or(config.get("rope_theta")).cloned();
    let Some(parameters) = config.get_mut("rope_parameters").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if let Some(full) = parameters.get_mut("full_attention").and_then(Value::as_object_mut) {
        full.extend(scaling);
        return Ok(());
    }
    match (&theta, parameters.get("rope_theta").and_then(Value::as_f64)) {
        (None, Some(base)) if base != 10_000.0 => crate::bail_input!(
            "{}: rope_scaling replaces rope_parameters, and has no rope_theta (rope_parameters: {base}); expected one of the two",
            dir.join("config.json").display()
        ),
        _ => *parameters = scaling,
    }
    parameters.extend(theta.map(|theta| ("rope_theta".to_string(), theta)));
    Ok(())
}

/// transformers 5 writes `rope_parameters` where older folders have `rope_theta`, `rope_local_base_freq`
/// and `rope_scaling`. Adds the older keys, so that readers need to know one spelling.
fn spell_out_rope(config: &mut Value) {
    let parameters = config["rope_parameters"].clone();
    // Gemma 3 has one set for each kind of layer, the others one for all.
    let (global, local) = match parameters.get("full_attention") {
        Some(global) => (global.clone(), parameters.get("sliding_attention").cloned()),
        None => (parameters, None),
    };
    let Some(global) = global.as_object() else {
        return;
    };
    let mut add = |key: &str, value: Option<&Value>| {
        if let Some(value) = value
            && config.get(key).is_none_or(Value::is_null)
        {
            config[key] = value.clone();
        }
    };
    add("rope_theta", global.get("rope_theta"));
    add("rope_local_base_freq", local.as_ref().and_then(|l| l.get("rope_theta")));
    if global.get("rope_type").is_some_and(|t| t != "default") {
        let mut scaling = global.clone();
        scaling.shift_remove("rope_theta");
        add("rope_scaling", Some(&Value::Object(scaling)));
    }
}

/// `eos_token_id` is a number or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

/// Where further chat templates of a model are.
const FURTHER_TEMPLATES: &str = "additional_chat_templates";

/// Files of their own go before the field of `tokenizer_config.json`, as in transformers.
fn chat_templates(dir: &Path, in_config: Option<&Value>) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::from([("default".to_string(), dir.join("chat_template.jinja"))]);
    for path in entries(dir, Path::new(FURTHER_TEMPLATES)) {
        if path.extension().is_some_and(|extension| extension == "jinja")
            && let Some(name) = path.file_stem()
        {
            files.insert(name.to_string_lossy().into_owned(), dir.join(path));
        }
    }
    files.retain(|_, file| file.is_file());
    if !files.is_empty() {
        let read = |(name, file): (String, PathBuf)| {
            let text = input_file::read_text_at_most(&file, LARGEST_TEMPLATE as u64)
                .map_err(|e| crate::error::input_error(format!("{}: {e}", file.display())))?;
            Ok((name, text))
        };
        return files.into_iter().map(read).collect();
    }
    let text = |value: &Value| value.as_str().map(str::to_string);
    Ok(match in_config {
        Some(Value::String(template)) => BTreeMap::from([("default".to_string(), template.clone())]),
        Some(Value::Array(list)) => {
            list.iter().filter_map(|t| Some((text(&t["name"])?, text(&t["template"])?))).collect()
        }
        Some(Value::Object(table)) => {
            table.iter().filter_map(|(name, template)| Some((name.clone(), text(template)?))).collect()
        }
        _ => BTreeMap::new(),
    })
}

/// The paths in a folder of what is in one of its folders, sorted.
fn entries(dir: &Path, below: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir.join(below)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = read.map(|entry| below.join(entry.file_name())).collect();
    paths.sort();
    paths
}

/// Files that describe a tokenizer and its chat template, in the forms that the tools around transformers read.
const TOKENIZER_FILES: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "preprocessor_config.json",
];

/// How the names of the files begin that hold the terms of a model.
const TERMS: [&str; 4] = ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"];

/// Those of a folder, and the versions of its tokenizer that are named; none if they do not say by themselves how to use the
/// tokenizer.
pub(crate) fn tokenizer_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.join("tokenizer_config.json").is_file() {
        return Ok(Vec::new());
    }
    let mut files: Vec<PathBuf> = TOKENIZER_FILES.map(|name| dir.join(name)).into_iter().collect();
    files.push(tokenizer_file(dir, &TokenNotes::read(dir)?.settings));
    files.retain(|path| path.is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// What a folder holds besides: further chat templates and the model's terms, by their paths in it.
pub(crate) fn companions(dir: &Path) -> Vec<PathBuf> {
    // They are copied beside what is made of the model, so a link to a file of the user's is not one of them. In a cache of the
    // hub the files of a snapshot are links to the blobs of the repository.
    let repository = dir.parent().filter(|p| p.ends_with("snapshots")).and_then(Path::parent).unwrap_or(dir);
    let repository = repository.canonicalize().unwrap_or_default();
    let is_file = |path: &PathBuf| {
        let found = dir.join(path).canonicalize();
        found.is_ok_and(|found| found.is_file() && found.starts_with(&repository))
    };
    let terms = entries(dir, Path::new("")).into_iter().filter(|path| {
        let name = path.to_string_lossy().to_uppercase();
        TERMS.iter().any(|start| name.starts_with(start))
    });
    let templates = entries(dir, Path::new(FURTHER_TEMPLATES));
    terms.chain(templates).filter(is_file).collect()
}

/// The tokenizer of a folder, with the tokens that its smaller files add, without the truncation and padding that it may have been saved with.
pub(crate) fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    let notes = TokenNotes::read(dir)?;
    let path = tokenizer_file(dir, &notes.settings);
    if !path.is_file() {
        crate::bail_input!("{}: missing; a folder without a fast tokenizer cannot be used", path.display());
    }
    let fault = |e: &dyn std::fmt::Display| crate::error::input_error(format!("{}: {e}", path.display()));
    let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| fault(&e))?;
    caught(|| notes.add_to(&mut tokenizer))
        .map_err(|said| fault(&format!("its tokens cannot be added: {said}")))??;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| anyhow!(e))?;
    if let Some(processor) = tokenizer.get_post_processor() {
        let mut json = serde_json::to_value(processor)?;
        keep_whitespace(&mut json);
        tokenizer.with_post_processor(Some(serde_json::from_value::<PostProcessorWrapper>(json)?));
    }
    Ok(tokenizer)
}

/// Turns `trim_offsets` off: with it a token of white space alone (indentation, say) has empty offsets, as
/// if it were not part of the text, and the loss mask would leave it out. Ids are the same either way.
fn keep_whitespace(processor: &mut Value) {
    match processor {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match key.as_str() {
            "trim_offsets" => *value = Value::Bool(false),
            _ => keep_whitespace(value),
        }),
        Value::Array(list) => list.iter_mut().for_each(keep_whitespace),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rope_parameters_are_spelled_out_in_the_older_keys() {
        let mut llama = json!({"rope_parameters": {
            "rope_theta": 5e5, "rope_type": "llama3", "factor": 32.0
        }});
        spell_out_rope(&mut llama);
        assert_eq!(llama["rope_theta"], 5e5);
        assert_eq!(llama["rope_scaling"], json!({"rope_type": "llama3", "factor": 32.0}));

        let mut gemma = json!({"rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        }});
        spell_out_rope(&mut gemma);
        assert_eq!(gemma["rope_theta"], 1e6);
        assert_eq!(gemma["rope_local_base_freq"], 1e4);
        assert!(gemma.get("rope_scaling").is_none());

        let mut old = json!({"rope_theta": 1e4, "rope_scaling": null});
        spell_out_rope(&mut old);
        assert_eq!(old["rope_theta"], 1e4);
    }

    #[test]
    #[cfg(unix)]
    fn a_licence_that_links_to_another_file_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(dir.path().join("secret"), "mine").unwrap();
        std::fs::write(model.join("NOTICE"), "terms").unwrap();
        std::os::unix::fs::symlink("NOTICE", model.join("LICENSE.txt")).unwrap();
        std::os::unix::fs::symlink("../secret", model.join("LICENSE")).unwrap();
        assert_eq!(companions(&model), [PathBuf::from("LICENSE.txt"), PathBuf::from("NOTICE")]);
    }

    #[test]
    fn end_tokens_are_a_number_or_a_list() {
        assert_eq!(ids(&json!(7)), [7]);
        assert_eq!(ids(&json!([7, 9])), [7, 9]);
        assert!(ids(&json!(null)).is_empty());
        assert!(ids(&json!(-1)).is_empty());
    }
}
