//! Whether a model's head is its table of embeddings: the rule of transformers 5, decided once, when a folder is opened.
//!
//! `PreTrainedModel.tie_weights` (transformers 5.24, `modeling_utils.py`) looks at the files where `tie_word_embeddings` is
//! true: a head with other numbers than the embeddings is a head of its own; of two equal ones, or where one of them is
//! missing, there is one matrix. Loading, full finetuning, merging and export all read what is settled here.

use anyhow::Result;
use serde_json::{Value, json};

use super::weights::{EMBEDDINGS, HEAD, NamedTensors};
use crate::progress;

/// Makes configuration and weights of the model `id` agree: afterwards `tie_word_embeddings` is true or false, and where it
/// is true there is one matrix, under the name of the embeddings. `by_default` is what an absent key means.
///
/// # Errors
/// If the two matrices have to be compared and cannot be read.
pub(super) fn settle(
    id: &str,
    config: &mut Value,
    weights: &mut NamedTensors,
    by_default: bool,
) -> Result<()> {
    let asked = match &config["tie_word_embeddings"] {
        Value::Null if config.get("tie_word_embeddings").is_none() => by_default,
        value => value == true,
    };
    let has = |weights: &NamedTensors, name: &str| weights.shape(name).is_some();
    let tied = asked
        && match (has(weights, EMBEDDINGS), has(weights, HEAD)) {
            (true, true) => weights.same(EMBEDDINGS, HEAD)?,
            _ => true,
        };
    if asked && !tied {
        progress::say(format_args!(
            "note: {id}: config.json has tie_word_embeddings = true, but the files hold {HEAD} with other values than \
             {EMBEDDINGS}: it is used as a separate head, as in transformers 5"
        ));
    }
    if tied {
        match has(weights, EMBEDDINGS) {
            true => weights.remove(HEAD),
            false => weights.rename(HEAD, EMBEDDINGS),
        }
    }
    config["tie_word_embeddings"] = json!(tied);
    Ok(())
}
