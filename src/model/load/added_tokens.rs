//! The tokens that a folder's smaller files add to its `tokenizer.json`.
//!
//! The rules are those of transformers 5.24 (`PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`):
//! `added_tokens_decoder` of `tokenizer_config.json` decides where it is there; without it, `special_tokens_map.json` goes
//! before `tokenizer_config.json`, and `added_tokens.json` counts too. Then every token with a name (`eos_token` and other
//! `*_token` keys, `additional_special_tokens`, `extra_special_tokens`) that is none yet becomes a special one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::bail_input;
use crate::json;

/// The keys under which every tokenizer may name a token.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files beside `tokenizer.json` say of its tokens.
#[derive(Debug)]
pub(crate) struct TokenNotes {
    /// `tokenizer_config.json`, with what `special_tokens_map.json` changes in it.
    pub settings: Map<String, Value>,
    /// By id: those of `added_tokens_decoder`, or of `added_tokens.json`.
    listed: BTreeMap<u64, AddedToken>,
    /// Tokens with a name that every tokenizer may have, or this one; an empty text is no token, and still has its name.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
}

/// An object of a folder, empty where the file is missing.
fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    match json::must_read(path)? {
        Value::Object(map) => Ok(map),
        _ => bail_input!("{}: not an object", path.display()),
    }
}

impl TokenNotes {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, as far as they are there.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a file that is no JSON object, or a token that is neither a text nor an object
    /// with its text under `content`.
    pub fn read(dir: &Path) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let mut settings = object(&config_path)?;
        // The older key is renamed before other files count.
        if is_nothing(settings.get("extra_special_tokens"))
            && let Some(list) = settings.remove("additional_special_tokens")
        {
            settings.insert("extra_special_tokens".into(), list);
        }
        let mut tabled = take_table(&mut settings);
        let mut listed = BTreeMap::new();
        let decoder = settings.get("added_tokens_decoder").cloned();
        if let Some(decoder) = &decoder {
            let Some(decoder) = decoder.as_object() else {
                bail_input!("{}: added_tokens_decoder is not an object", config_path.display());
            };
            for (id, token) in decoder {
                match (id.parse(), token_of(token, false)) {
                    (Ok(id), Some(token)) if !token.content.is_empty() => listed.insert(id, token),
                    _ => bail_input!(
                        "{}: added_tokens_decoder {id:?} is {token}; expected an id and a token with its content",
                        config_path.display()
                    ),
                };
            }
        } else {
            merge_map(&mut settings, object(&dir.join("special_tokens_map.json"))?);
            tabled.extend(take_table(&mut settings));
        }
        let extra = extra(&settings, &config_path)?;
        let named = named(&settings, &tabled, &config_path)?;
        if decoder.is_none() {
            let path = dir.join("added_tokens.json");
            for (text, id) in object(&path)? {
                let Some(id) = id.as_u64() else {
                    bail_input!("{}: {text:?} has the id {id}; expected a number", path.display());
                };
                let is_special =
                    named.iter().map(|(_, token)| token).chain(&extra).any(|t| t.content == text);
                listed.insert(id, AddedToken::from(text, is_special));
            }
        }
        Ok(Self { settings, listed, named, extra })
    }

    /// The text of the token under a name such as `eos_token`.
    pub fn text(&self, name: &str) -> Option<String> {
        self.settings
            .get(name)
            .and_then(|token| Some(token_of(token, true)?.content))
            .filter(|text| !text.is_empty())
    }

    /// The texts of the tokens that have a name, by name, as transformers gives them to a chat template.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.named.iter().map(|(name, token)| (name.clone(), token.content.clone())).collect()
    }

    /// Adds to a tokenizer what its `tokenizer.json` lacks.
    ///
    /// # Errors
    /// If the tokenizer refuses a token.
    pub fn add_to(&self, tokenizer: &mut Tokenizer) -> Result<()> {
        let is_known = |tokenizer: &Tokenizer, text: &str| {
            tokenizer.get_added_tokens_decoder().values().any(|token| token.content == text)
        };
        // What `tokenizer.json` lists keeps its id. `added_tokens_decoder` may change how it is matched.
        let from_config = self.settings.contains_key("added_tokens_decoder");
        let mut tokens: Vec<AddedToken> = self
            .listed
            .values()
            .filter(|token| from_config || !is_known(tokenizer, &token.content))
            .cloned()
            .collect();
        let names = |text: &str| self.named.iter().any(|(_, token)| token.content == text);
        for token in &mut tokens {
            token.special |= names(&token.content);
        }
        // Of a token that is named twice the last one decides how it is matched.
        let is_listed = |text: &str| tokens.iter().any(|token| token.content == text);
        let more = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        let more = more.filter(|token| {
            let text = &token.content;
            !text.is_empty() && !is_listed(text) && !is_known(tokenizer, text)
        });
        let more: Vec<AddedToken> = more.cloned().collect();
        tokens.extend(more);
        tokenizer
            .add_tokens(tokens)
            .map_err(|e| anyhow!("cannot add the tokens of tokenizer_config.json: {e}"))?;
        if self.settings.get("split_special_tokens") == Some(&Value::Bool(true)) {
            tokenizer.set_encode_special_tokens(true);
        }
        Ok(())
    }
}

/// Takes the keys of `special_tokens_map.json` into the settings.
fn merge_map(settings: &mut Map<String, Value>, map: Map<String, Value>) {
    for (key, value) in map {
        match (key.as_str(), value) {
            ("extra_special_tokens", Value::Array(more)) => {
                let mut list = settings.get(&key).and_then(Value::as_array).cloned().unwrap_or_default();
                list.extend(more.into_iter().filter(|token| !list.contains(token)).collect::<Vec<_>>());
                settings.insert(key, Value::Array(list));
            }
            (_, value) => drop(settings.insert(key, value)),
        }
    }
}

/// Takes tokens with names of the tokenizer's own out of the settings: a table in place of the list.
fn take_table(settings: &mut Map<String, Value>) -> Map<String, Value> {
    let Some(Value::Object(table)) = settings.get("extra_special_tokens") else { return Map::new() };
    let table = table.clone();
    settings.remove("extra_special_tokens");
    table
}

/// Whether a list or table of tokens is missing or empty.
fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(names)) => names.is_empty(),
        Some(_) => false,
    }
}

/// The special tokens without a name: the list `extra_special_tokens`, or where that key is missing the older
/// `additional_special_tokens`.
fn extra(settings: &Map<String, Value>, path: &Path) -> Result<Vec<AddedToken>> {
    let keys = ["extra_special_tokens", "additional_special_tokens"];
    let Some(key) = keys.into_iter().find(|key| settings.contains_key(*key)) else { return Ok(Vec::new()) };
    match &settings[key] {
        Value::Array(list) => list.iter().map(|token| named_token(token, key, path)).collect(),
        Value::Null => Ok(Vec::new()),
        found => bail_input!("{}: {key} is {found}; expected a list of tokens", path.display()),
    }
}

/// The tokens under names: those that every tokenizer may have, then other texts under keys that end in `_token`, and those
/// that stood in a table.
fn named(
    settings: &Map<String, Value>,
    tabled: &Map<String, Value>,
    path: &Path,
) -> Result<Vec<(String, AddedToken)>> {
    let usual = NAMED.iter().filter_map(|key| Some((*key, settings.get(*key)?)));
    let is_own = |(key, value): &(&String, &Value)| {
        key.ends_with("_token") && value.is_string() && !NAMED.contains(&key.as_str())
    };
    let own = settings.iter().filter(is_own).map(|(key, value)| (key.as_str(), value));
    let tabled = tabled.iter().map(|(key, value)| (key.as_str(), value));
    let given = usual.chain(own).chain(tabled).filter(|(_, token)| !token.is_null());
    given.map(|(key, token)| Ok((key.to_string(), named_token(token, key, path)?))).collect()
}

fn named_token(token: &Value, key: &str, path: &Path) -> Result<AddedToken> {
    match token_of(token, true) {
        Some(token) => Ok(AddedToken { special: true, ..token }),
        None => bail_input!("{}: {key} is {token}; expected a token", path.display()),
    }
}

/// A token from its text, or from an object with the text under `content`. One that is not said to be special is, or is
/// not, as `special` says.
fn token_of(token: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = token.as_str() {
        return Some(AddedToken::from(text, special));
    }
    let flag = |key: &str| token.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(special);
    let text = token.get("content")?.as_str()?;
    Some(
        AddedToken::from(text, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

/// The file that holds the tokenizer: `tokenizer.json`, or of the versions that `fast_tokenizer_files` lists the last one
/// that transformers 5 takes (`get_fast_tokenizer_file`).
pub(super) fn tokenizer_file(dir: &Path, settings: &Map<String, Value>) -> PathBuf {
    let version = |name: &str| -> Option<Vec<u64>> {
        let version = name.strip_prefix("tokenizer.")?.strip_suffix(".json")?;
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let files = settings.get("fast_tokenizer_files").and_then(Value::as_array);
    let named = files.into_iter().flatten().filter_map(Value::as_str);
    let known = named.filter_map(|name| Some((version(name)?, name))).filter(|(v, _)| v[0] <= 5);
    dir.join(known.max().map_or("tokenizer.json", |(_, name)| name))
}
