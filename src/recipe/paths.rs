//! Paths in a recipe: relative to where they were written, absolute from then on.

use std::path::{Path, PathBuf};

use toml::Value;

use super::CHAT_TEMPLATES;
use crate::hub::aliases;

/// Makes the paths of a value absolute, which stands in a recipe under `key`.
pub fn make_absolute(key: &str, value: &mut Value, folder: &Path) {
    match (key, value) {
        (
            "data.narrow" | "data.pretraining" | "data.chat" | "diff.text" | "diff.chat.text"
            | "diff.candidates",
            sources,
        ) => {
            make_sources_absolute(sources, folder);
        }
        ("model.base" | "diff.embedder", Value::String(model)) => {
            // An alias or an id is none of a folder. What is nowhere stays as it is: it may be an alias with a slip in it.
            let is_named = model.is_empty() || model.starts_with("hf:") || aliases::find(model).is_some();
            let is_path = folder.join(&*model).exists() || Path::new(&*model).exists();
            // Of the current folder, a plain name means the same as it stands.
            let is_plain = folder == Path::new("") && !model.contains(['/', '.']);
            if !is_named && is_path && !is_plain {
                *model = absolute(folder, model);
            }
        }
        ("data.chat_template", Value::String(template))
            if !template.is_empty() && !CHAT_TEMPLATES.contains(&template.as_str()) =>
        {
            *template = absolute(folder, template);
        }
        (
            "train.lora.init"
            | "diff.floor"
            | "train.mitigation.ablation.directions"
            | "behaviour.facts.items"
            | "behaviour.misalignment.items",
            Value::String(path),
        ) if !path.is_empty() => {
            *path = absolute(folder, path);
        }
        (_, Value::Table(section)) => {
            section.iter_mut().for_each(|(k, v)| make_absolute(&format!("{key}.{k}"), v, folder));
        }
        _ => {}
    }
}

/// A path, a table with a path, or a list of these.
fn make_sources_absolute(value: &mut Value, folder: &Path) {
    match value {
        Value::String(path) if path != "self" && !path.starts_with("hf:") && !path.is_empty() => {
            *path = absolute(folder, path);
        }
        Value::Array(list) => list.iter_mut().for_each(|one| make_sources_absolute(one, folder)),
        Value::Table(table) => {
            if let Some(path) = table.get_mut("path") {
                make_sources_absolute(path, folder);
            }
        }
        _ => {}
    }
}

fn absolute(folder: &Path, path: &str) -> String {
    let joined: PathBuf = folder.join(path);
    std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned()
}
