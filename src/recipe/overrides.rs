//! `--set key.path=value`.

use std::path::Path;

use toml::{Table, Value};

use super::paths::make_absolute;

/// Sets dotted keys in order and returns what is wrong with those that cannot be set. A preset among them starts `[diff]`
/// over first, whose keys a resolved recipe has all.
pub fn apply_overrides(table: &mut Table, overrides: &[String]) -> Vec<String> {
    let is_preset = |set: &String| set.split_once('=').is_some_and(|(key, _)| key.trim() == "diff.preset");
    if let (true, Some(Value::Table(diff))) = (overrides.iter().any(is_preset), table.get_mut("diff")) {
        diff.retain(|key, _| ["text", "candidates", "embedder", "floor"].contains(&key));
    }
    overrides.iter().filter_map(|set| apply_override(table, set).err()).collect()
}

/// Sets one dotted key. A path in the value is relative to the current folder.
fn apply_override(table: &mut Table, set: &str) -> Result<(), String> {
    let Some((key, text)) = set.split_once('=') else {
        return Err(format!("--set {set}: expected key.path=value"));
    };
    if key.trim().split('.').next() == Some("sweep") {
        return Err(format!(
            "--set {set}: the axes of a sweep have their own flags; expected --mix R,R,…, --seeds S,S,… or --grid \
             KEY.PATH=V,V,… of trainer sweep or tune"
        ));
    }
    // A value is TOML; what is not TOML is a string, so that paths need no quotes.
    let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let mut value = value.unwrap_or_else(|| Value::String(text.to_string()));
    make_absolute(key.trim(), &mut value, Path::new(""));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("--set {set}: expected key.path=value"));
    }
    let last = parts.pop().unwrap_or_default();
    let mut at = table;
    for part in parts {
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = match next {
            Value::Table(t) => t,
            _ => return Err(format!("--set {set}: {part} is a value, not a table")),
        };
    }
    at.insert(last.to_string(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;
    use super::*;

    #[test]
    fn overrides_reach_nested_keys() {
        let mut table = Table::new();
        for set in ["train.lora.r=4", "data.mix=1", "name=cake", "data.pretraining=self", "train.lr=1e-5"] {
            apply_override(&mut table, set).unwrap();
        }
        let (recipe, faults) = Recipe::from_table(&table);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((recipe.train.lora.r, recipe.data.mix, recipe.train.lr), (4, 1.0, 1e-5));
        assert!(recipe.data.pretraining[0].is_self());
    }

    #[test]
    fn paths_of_overrides_are_those_of_the_current_folder() {
        let here = std::env::current_dir().unwrap();
        let mut table = Table::new();
        for set in [
            "data.narrow=['a.jsonl', {path='/b.jsonl', weight=1}, 'hf:c/d', 'self']",
            "diff={text='sub/../e.jsonl', embedder='src'}",
            "model={base='src/lib.rs'}",
        ] {
            apply_override(&mut table, set).unwrap();
        }
        let (recipe, faults) = Recipe::from_table(&table);
        assert!(faults.is_empty(), "{faults:?}");
        let here = |name: &str| here.join(name).to_str().unwrap().to_string();
        let paths: Vec<&str> = recipe.data.narrow.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(paths, [here("a.jsonl").as_str(), "/b.jsonl", "hf:c/d", "self"]);
        assert_eq!(recipe.diff.text[0].path, here("sub/../e.jsonl"));
        assert_eq!((recipe.model.base, recipe.diff.embedder), (here("src/lib.rs"), "src".into()));
    }
}
