//! From a `MODEL` string (alias, `hf:org/name[@revision]`, folder, `.gguf` file) to weights under
//! Hugging Face names, a configuration, a tokenizer and a chat template.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, anyhow};
use serde_json::Value;

pub use super::weights::NamedTensors;
pub use crate::sha256::{sha256_file, sha256_path};

use super::hub::HubModel;
use super::weights::{EMBEDDINGS, Frozen, HEAD};
use super::{alias, folder, gguf_keys, gguf_model, gguf_split, gguf_tokenizer, sizes, tied};
use crate::caught::caught;
use crate::data::chat_template::{self, ChatTemplate};
use crate::data::conversation::{Conversation, Message};
use crate::data::examples::front_of;
use crate::device::device;
use crate::error::{InputError, input_error};
use crate::interrupt::Interrupt;
use crate::model::arch;
use crate::model::arch::rotary;
use crate::ops::kernels::fused;
use crate::recipe::{CHAT_TEMPLATES, ModelDtype};
use crate::text_file::is_leftover;
use crate::tokenizer::Tokenizer;

/// A pretrained model as every source delivers it.
#[derive(Debug)]
pub struct Pretrained {
    /// The `MODEL` string it was opened with.
    pub id: String,
    /// `config.json` of the model, or the same keys rebuilt from a GGUF file's metadata.
    pub config: serde_json::Value,
    /// The weights, under Hugging Face names (`model.layers.0.self_attn.q_proj.weight`).
    pub weights: NamedTensors,
    /// The tokenizer; `encode(text, true)` adds the special tokens that transformers adds.
    pub tokenizer: Tokenizer,
    /// The Jinja chat template, if the model has one.
    pub chat_template: Option<String>,
    /// The model's further chat templates, by name: `tool_use` renders conversations with tools.
    pub further_templates: BTreeMap<String, String>,
    /// Text of the beginning-of-sequence token, as chat templates use it.
    pub bos_token: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos_token: Option<String>,
    /// Text of the padding token. Nothing is padded here; an export passes it on.
    pub pad_token: Option<String>,
    /// Texts of all tokens that the source names (`unk_token`), by name: a chat template may put them in.
    pub named_tokens: BTreeMap<String, String>,
    /// The tokenizer's own files, where the source is a folder: an export copies them.
    pub tokenizer_files: Vec<PathBuf>,
    /// The folder, where the source is one, and paths in it of what an export copies beside the tokenizer.
    pub companions: (PathBuf, Vec<PathBuf>),
    /// `generation_config.json`, where the source has one.
    pub generation_config: Option<Value>,
    /// Ids that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// sha256 of each weight file, by file name.
    pub sha256: BTreeMap<String, String>,
    /// Whether it is a GGUF file.
    gguf: bool,
    /// Whether the chat template is not the model's own.
    pub(in crate::model) other_template: bool,
}

impl Pretrained {
    /// How a model built from this holds its frozen matrices: as f32, or on the CPU as bf16 or (GGUF files) as the file has
    /// them, whose numbers are the same.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if another type than f32 is asked for where there is none.
    pub fn set_dtype(&mut self, dtype: ModelDtype) -> Result<()> {
        let native = dtype == ModelDtype::Native;
        if native && !self.gguf {
            crate::bail_input!(
                "model.dtype = \"native\": {} is not a GGUF file; expected a GGUF file, or dtype = \"f32\"",
                self.id
            );
        }
        if dtype != ModelDtype::F32 && !fused(&device()?) {
            crate::bail_input!(
                "model.dtype = {:?}: only a CPU computes with such weights; expected dtype = \"f32\", or --device cpu",
                dtype.name()
            );
        }
        self.weights.frozen = match dtype {
            ModelDtype::F32 => Frozen::F32,
            ModelDtype::Native => Frozen::AsStored,
            ModelDtype::Bf16 => Frozen::Bf16,
        };
        Ok(())
    }

    /// Takes a chat template in place of the model's own: what `data.chat_template` names, nothing if it is empty. The
    /// token that closes an assistant's turn in it then ends a generation too.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it cannot be read or does not compile, or if it comes with the program and
    /// the tokenizer has no token that closes its turns.
    pub fn set_chat_template(&mut self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        self.chat_template = Some(chat_template::named(name)?);
        self.further_templates.clear();
        self.other_template = true;
        match self.end_of_turn()? {
            Some(end) if !self.eos_token_ids.contains(&end) => self.eos_token_ids.push(end),
            None if CHAT_TEMPLATES.contains(&name) => crate::bail_input!(
                "data.chat_template = {name:?}: {} has no special token that closes its turns; expected another template",
                self.id
            ),
            _ => {}
        }
        Ok(())
    }

    /// The first special token after what the assistant says in a chat, found with a probe.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn end_of_turn(&self) -> Result<Option<u32>> {
        // A word that no template holds.
        let answer = "qzjxv";
        let chat = Conversation::of(vec![Message::new("user", "a"), Message::new("assistant", answer)]);
        let text = match self.chat()?.render(&chat, false) {
            Ok(text) => text,
            Err(e) => crate::bail_input!("{}: chat template: {e:#}", self.id),
        };
        let Some(at) = text.rfind(answer) else { return Ok(None) };
        let tail = self.tokenizer.encode(&text[at + answer.len()..], false).map_err(|e| anyhow!(e))?;
        let special = self.tokenizer.get_added_tokens_decoder();
        Ok(tail.get_ids().iter().copied().find(|id| special.get(id).is_some_and(|token| token.special)))
    }

    /// Rows of the table of embeddings, where they are as many as the configuration says.
    pub fn vocabulary(&self) -> Option<usize> {
        let rows = *self.weights.shape(EMBEDDINGS)?.first()?;
        (self.config["vocab_size"].as_u64() == Some(rows as u64)).then_some(rows)
    }

    /// Leaves of the vocabulary the first `rows` ids: of the embeddings, and of the head where there is one.
    pub fn keep_vocabulary(&mut self, rows: usize) {
        self.weights.keep_rows(EMBEDDINGS, rows);
        self.weights.keep_rows(HEAD, rows);
        self.config["vocab_size"] = rows.into();
    }

    /// Positions that the model was made for: `max_position_embeddings`, times the factor of a linear rope scaling (of
    /// Gemma 3 and with Llama 3's rule the config has the raised number already). With YaRN it is the factor times the
    /// original context where that is more: the config may have either number.
    pub fn context(&self) -> Option<usize> {
        let trained = usize::try_from(self.config["max_position_embeddings"].as_u64()?).ok()?;
        let scaling = match &self.config["rope_parameters"] {
            Value::Null => &self.config["rope_scaling"],
            parameters => parameters,
        };
        let factor = scaling["factor"].as_f64().unwrap_or(1.0).max(1.0);
        let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str());
        Some(match kind {
            Some("linear") if self.config["model_type"] != "gemma3_text" => {
                (trained as f64 * factor) as usize
            }
            Some("yarn") => {
                let original = rotary::original_context(&self.config, scaling)?;
                trained.max((original * factor) as usize)
            }
            _ => trained,
        })
    }

    /// What is wrong with texts of these lengths in tokens, if some are longer than [`Self::context`]. `what` says what they
    /// are.
    pub fn longer_than_context(&self, what: &str, lengths: impl Iterator<Item = usize>) -> Option<String> {
        let context = self.context()?;
        let (mut all, mut longer, mut longest) = (0, 0, 0);
        for length in lengths {
            all += 1;
            longer += usize::from(length > context);
            longest = longest.max(length);
        }
        (longer > 0).then(|| {
            format!(
                "{what}: {longer} of {all} are longer than the {context} positions of the model's context \
                 (max_position_embeddings), the longest has {longest} tokens: the model was not trained for later \
                 positions"
            )
        })
    }

    /// The compiled chat template.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if the model has none (a base model), or if it does not compile.
    pub fn chat(&self) -> Result<ChatTemplate> {
        let Some(source) = &self.chat_template else {
            let names: Vec<&str> = self.further_templates.keys().map(String::as_str).collect();
            if !names.is_empty() {
                crate::bail_input!(
                    "{}: has the chat templates {}, and none that is named default; write the one you want to a Jinja \
                     file and name it with data.chat_template (--chat-template)",
                    self.id,
                    names.join(", ")
                );
            }
            crate::bail_input!(
                "{}: has no chat template (a base model?); chats cannot be rendered. Set data.chat_template \
                 (--chat-template) to a Jinja file or to a built-in template: {}",
                self.id,
                CHAT_TEMPLATES.join(", ")
            )
        };
        let special_tokens = [
            ("bos_token", self.bos_token.as_deref()),
            ("eos_token", self.eos_token.as_deref()),
            ("pad_token", self.pad_token.as_deref()),
        ];
        let named = self.named_tokens.iter().map(|(name, text)| (name.as_str(), Some(text.as_str())));
        let special_tokens = special_tokens.into_iter().chain(named);
        let compiled = ChatTemplate::compile(source, special_tokens);
        let compiled = compiled.and_then(|template| match self.further_templates.get("tool_use") {
            Some(source) => template.with_tools(source),
            None => Ok(template),
        });
        match compiled {
            Ok(template) => Ok(template),
            Err(e) => crate::bail_input!("{}: chat template: {e:#}", self.id),
        }
    }
}

impl Pretrained {
    /// Special tokens that the tokenizer puts in front of a text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn front(&self) -> Result<Vec<u32>> {
        front_of(&self.tokenizer)
    }

    /// Ids of a prompt: as a user's turn where a template is given, else as text with the special tokens that
    /// the tokenizer adds.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if the prompt begins with the tokens that the tokenizer puts in front. If the template
    /// refuses the turn or the tokenizer fails.
    pub fn prompt_ids(&self, prompt: &str, template: Option<&ChatTemplate>) -> Result<Vec<u32>> {
        let encoding = match template {
            Some(template) => self.tokenizer.encode(template.user_turn(prompt)?, false),
            None => self.tokenizer.encode(prompt, true),
        };
        let ids = encoding.map_err(|e| anyhow!(e))?.get_ids().to_vec();
        let front = self.front()?;
        if !front.is_empty() && ids.starts_with(&[&front[..], &front[..]].concat()) {
            crate::bail_input!(
                "begins with the beginning-of-sequence token twice: the prompt holds it, and the tokenizer adds it; take it \
                 out of the prompt"
            );
        }
        Ok(ids)
    }
}

/// Opens a `MODEL`; an alias or `hf:` id that is not cached is fetched first, with progress on stderr.
///
/// # Errors
/// An [`crate::error::InputError`] for an unknown alias, a missing file, a hash that does not match, or
/// no network.
pub fn open(model: &str) -> Result<Pretrained> {
    open_or_stop(model, &Interrupt::default())
}

/// [`open`] for commands that catch Ctrl-C: a fetch stops soon after the flag is set.
///
/// # Errors
/// As [`open`], and [`crate::error::Interrupted`].
pub fn open_or_stop(model: &str, interrupt: &Interrupt) -> Result<Pretrained> {
    let opened = open_path(model, &locate(model, interrupt)?)?;
    // The hash is computed anyway; a file in the cache that has changed since it was fetched shows here.
    if let Some(known) = alias::find(model) {
        let found = opened.sha256.values().next().map(String::as_str);
        if found != Some(known.sha256) {
            crate::bail_input!(
                "{model}: the cached file has sha256 {}, expected {}; delete it and run: trainer models fetch {model}",
                found.unwrap_or("none"),
                known.sha256
            );
        }
    }
    Ok(opened)
}

/// What a finetuned model is: an adapter beside a base, or a whole model.
pub enum Tuned {
    /// Folder of a PEFT adapter.
    Adapter(PathBuf),
    /// A model.
    Model(Box<Pretrained>),
}

/// Opens a `MODEL_OR_ADAPTER`: an adapter's folder or `hf:` id, or else a `MODEL`.
///
/// # Errors
/// As [`open_or_stop`].
pub fn open_tuned(tuned: &str, interrupt: &Interrupt) -> Result<Tuned> {
    let adapter = match tuned.strip_prefix("hf:") {
        Some(id) => HubModel::parse(id)?.adapter_folder(interrupt)?,
        None => Some(PathBuf::from(tuned)).filter(|dir| dir.join("adapter_config.json").exists()),
    };
    let dir = Path::new(tuned);
    if adapter.is_none() && dir.is_dir() {
        let is_adapter = dir.join("adapter_model.safetensors").exists();
        let is_empty = !dir.join("config.json").exists() && gguf_files(dir)?.is_empty();
        if is_adapter || is_empty {
            crate::bail_input!(
                "{tuned}: expected a PEFT adapter (adapter_config.json is missing), or a model (config.json, or a .gguf \
                 file)"
            );
        }
    }
    Ok(match adapter {
        Some(dir) => Tuned::Adapter(dir),
        None => Tuned::Model(Box::new(open_or_stop(tuned, interrupt)?)),
    })
}

/// The tokenizer that a folder holds, if it holds one.
///
/// # Errors
/// An [`crate::error::InputError`] if its file cannot be read.
pub fn tokenizer_of(dir: &Path) -> Result<Option<Tokenizer>> {
    dir.join("tokenizer.json").is_file().then(|| folder::tokenizer(dir)).transpose()
}

/// The folder of an adapter, given as a folder or an `hf:` id.
///
/// # Errors
/// An [`crate::error::InputError`] if the id is that of a model, or cannot be fetched.
pub fn adapter_dir(adapter: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let Some(id) = adapter.strip_prefix("hf:") else { return Ok(PathBuf::from(adapter)) };
    match HubModel::parse(id)?.adapter_folder(interrupt)? {
        Some(dir) => Ok(dir),
        None => Err(input_error(format!("{adapter}: holds no PEFT adapter (adapter_config.json)"))),
    }
}

/// A `MODEL` that means the same in every current folder: an alias or `hf:` id as it is, a path made absolute.
pub fn absolute(model: &str) -> String {
    let named = model.starts_with("hf:") || alias::find(model).is_some() || !Path::new(model).exists();
    match std::path::absolute(model) {
        Ok(path) if !named => path.to_string_lossy().into_owned(),
        _ => model.to_string(),
    }
}

/// The folder or file that a `MODEL` stands for, fetched if need be. An alias goes before a folder of
/// the same name (write `./name` for the folder).
fn locate(model: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(id) = model.strip_prefix("hf:") {
        return HubModel::parse(id)?.folder(interrupt);
    }
    if let Some(known) = alias::find(model) {
        if known.is_embedder() {
            crate::bail_input!(
                "{model} is a sentence embedder, not a language model; language models: {}",
                alias::table::names(false).join(", ")
            );
        }
        return alias::ensure(known, interrupt);
    }
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let hint = match alias::nearest(model) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("aliases: {}", alias::table::names(false).join(", ")),
    };
    Err(input_error(format!("{model}: no such alias, folder or .gguf file; {hint}")))
}

fn open_path(id: &str, path: &Path) -> Result<Pretrained> {
    if path.is_file() {
        return match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("gguf") => open_gguf(id, path),
            _ => Err(input_error(format!("{}: expected a folder or a .gguf file", path.display()))),
        };
    }
    if path.join("config.json").is_file() {
        // transformers opens the adapter's base with the adapter on it, whatever weights lie beside them.
        if path.join("adapter_config.json").is_file() {
            crate::bail_input!(
                "{}: holds a model (config.json) and an adapter (adapter_config.json); expected a folder with one of them",
                path.display()
            );
        }
        return open_folder(id, path);
    }
    // A folder around one GGUF file, as hubs and converters leave them.
    match gguf_files(path)?.as_slice() {
        [one] => open_gguf(id, one),
        [] => Err(input_error(format!("{}: has neither config.json nor a .gguf file", path.display()))),
        several => Err(input_error(format!(
            "{}: has {} .gguf files; name the one to open, such as {}",
            path.display(),
            several.len(),
            several[0].display()
        ))),
    }
}

/// The GGUF files of a folder, sorted; of a split model the first part.
fn gguf_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| input_error(format!("{}: {e}", dir.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")))
        .filter(|file| file.file_name().is_some_and(|name| !is_leftover(&name.to_string_lossy())))
        .collect();
    files.sort();
    Ok(gguf_split::first_parts(files))
}

fn open_folder(id: &str, dir: &Path) -> Result<Pretrained> {
    let files = folder::weight_files(dir)?;
    thread::scope(|scope| {
        let sha256 = scope.spawn(|| digests(&files));
        let mut parts = folder::parts(dir)?;
        sizes::check(&parts.config).map_err(|e| in_folder(dir, e))?;
        let tokenizer = folder::tokenizer(dir)?;
        let mut weights = folder::weights(dir, &files)?;
        // Of an architecture that is not known, loading says so.
        if let Some(known) = parts.config["model_type"].as_str().and_then(arch::find) {
            tied::settle(id, &mut parts.config, &mut weights, known.ties_by_default)?;
        }
        let eos_token_ids = match parts.eos_token_ids.as_slice() {
            // Neither file names an id: take that of the token.
            [] => parts
                .eos_token
                .as_deref()
                .and_then(|token| tokenizer.token_to_id(token))
                .into_iter()
                .collect(),
            _ => parts.eos_token_ids,
        };
        Ok(Pretrained {
            id: id.to_string(),
            config: parts.config,
            weights,
            tokenizer,
            chat_template: parts.chat_templates.remove("default"),
            further_templates: parts.chat_templates,
            bos_token: parts.bos_token,
            eos_token: parts.eos_token,
            pad_token: parts.pad_token,
            named_tokens: parts.named_tokens,
            tokenizer_files: folder::tokenizer_files(dir)?,
            companions: (dir.to_path_buf(), folder::companions(dir)),
            generation_config: parts.generation_config,
            eos_token_ids,
            sha256: join(sha256)?,
            gguf: false,
            other_template: false,
        })
    })
}

/// Faults of a folder's `config.json` with the path of the folder.
fn in_folder(dir: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<InputError>() {
        Ok(input) => {
            let faults = input.faults.iter().map(|fault| dir.join(fault).display().to_string());
            InputError { faults: faults.collect() }.into()
        }
        Err(error) => error,
    }
}

fn open_gguf(id: &str, path: &Path) -> Result<Pretrained> {
    // Every fault below is one of the file, hence of the input.
    let at = |error: anyhow::Error| match error.downcast::<InputError>() {
        Ok(input) => {
            let faults = input.faults.iter().map(|fault| format!("{}: {fault}", path.display()));
            InputError { faults: faults.collect() }.into()
        }
        Err(error) => input_error(format!("{}: {error:#}", path.display())),
    };
    let (files, header) = gguf_split::open(path).map_err(at)?;
    thread::scope(|scope| {
        let sha256 = scope.spawn(|| digests(&files));
        let (architecture, names) = arch::of_gguf(header.text("general.architecture")).map_err(at)?;
        gguf_keys::check(&header, names.name).map_err(at)?;
        let mut config = gguf_model::config(&header, architecture, names).map_err(at)?;
        sizes::check(&config).map_err(at)?;
        gguf_model::complete_config(&files, &header, &mut config).map_err(at)?;
        let weights = gguf_model::weights(&files, &header, names, &config).map_err(at)?;
        let (tokenizer, special) = caught(|| gguf_tokenizer::build(&header))
            .map_err(|said| anyhow!("its tokenizer cannot be built: {said}"))
            .and_then(|built| built)
            .map_err(at)?;
        Ok(Pretrained {
            id: id.to_string(),
            config,
            weights,
            tokenizer: tokenizer.into(),
            chat_template: gguf_model::chat_template(&header, ""),
            further_templates: gguf_model::chat_template(&header, ".tool_use")
                .map(|template| ("tool_use".to_string(), template))
                .into_iter()
                .collect(),
            bos_token: special.bos,
            eos_token: special.eos,
            pad_token: special.pad,
            named_tokens: BTreeMap::new(),
            tokenizer_files: Vec::new(),
            companions: (PathBuf::new(), Vec::new()),
            generation_config: None,
            eos_token_ids: special.end_ids,
            sha256: join(sha256)?,
            gguf: true,
            other_template: false,
        })
    })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().map_err(|_| anyhow!("the thread that hashes the weight files panicked"))?
}

/// sha256 of each file, by file name.
fn digests(files: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    files
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            Ok((name.to_string_lossy().into_owned(), sha256_file(path)?))
        })
        .collect()
}
