//! Whether the sizes in a `config.json` are those of a model, before anything is built from them.

use anyhow::Result;
use serde_json::Value;

use crate::error::InputError;
use crate::limits::{LARGEST_VOCABULARY, MOST_BLOCKS, MOST_HEADS, WIDEST_HEAD, WIDEST_LAYER};

/// Checks every number of a config by which memory or a loop is sized, or by which something is divided. Whether the tensors
/// have these sizes is checked as each is read.
///
/// # Errors
/// An [`InputError`] with every number that no model has.
pub(super) fn check(config: &Value) -> Result<()> {
    let mut faults = Vec::new();
    let size = |key: &str| config[key].as_u64();
    let whole = [
        ("hidden_size", WIDEST_LAYER),
        ("intermediate_size", WIDEST_LAYER),
        ("vocab_size", LARGEST_VOCABULARY),
        ("num_hidden_layers", MOST_BLOCKS),
        ("num_attention_heads", MOST_HEADS),
        ("num_key_value_heads", MOST_HEADS),
        ("head_dim", WIDEST_HEAD),
    ];
    for (key, most) in whole {
        // What is no whole number is a fault of the key's type, of which the architecture tells.
        if let Some(found) = size(key).filter(|found| !(1..=most).contains(found)) {
            faults.push(format!("config.json: {key} = {found}: expected 1 to {most}"));
        }
    }
    let heads = size("num_attention_heads").filter(|heads| *heads > 0);
    if let (Some(heads), Some(groups)) = (heads, size("num_key_value_heads").filter(|groups| *groups > 0))
        && !heads.is_multiple_of(groups)
    {
        faults.push(format!(
            "config.json: num_attention_heads = {heads} is no multiple of num_key_value_heads = {groups}"
        ));
    }
    let head_dim = size("head_dim").or_else(|| Some(size("hidden_size")? / heads?));
    if let Some(width) = head_dim.filter(|width| width % 2 == 1) {
        faults.push(format!(
            "config.json: head_dim = {width}: expected an even number: rotary positions turn pairs of it"
        ));
    }
    for key in ["rope_theta", "rope_local_base_freq", "query_pre_attn_scalar"] {
        positive(&config[key], key, &mut faults);
    }
    if let Some(eps) = config["rms_norm_eps"].as_f64().filter(|eps| !(0.0..=1.0).contains(eps)) {
        faults.push(format!("config.json: rms_norm_eps = {eps}: expected 0 to 1"));
    }
    for (name, rope) in
        [("rope_scaling", &config["rope_scaling"]), ("rope_parameters", &config["rope_parameters"])]
    {
        let kinds = [
            ("", rope),
            (".full_attention", &rope["full_attention"]),
            (".sliding_attention", &rope["sliding_attention"]),
        ];
        for (kind, rope) in kinds {
            for key in [
                "rope_theta",
                "factor",
                "low_freq_factor",
                "high_freq_factor",
                "original_max_position_embeddings",
            ] {
                positive(&rope[key], &format!("{name}{kind}.{key}"), &mut faults);
            }
        }
    }
    InputError::unless_empty(faults)
}

fn positive(value: &Value, key: &str, faults: &mut Vec<String>) {
    let fits = |number: f64| number > 0.0 && (number as f32).is_finite() && number as f32 > 0.0;
    if let Some(found) = value.as_f64().filter(|found| !fits(*found)) {
        faults.push(format!("config.json: {key} = {found}: expected a positive number"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_that_no_model_has_are_refused_before_anything_is_built() {
        let config = json!({
            "hidden_size": 64, "intermediate_size": 128, "vocab_size": 300, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        });
        assert!(check(&config).is_ok());
        for (key, bad) in [
            ("head_dim", json!(0)),
            ("head_dim", json!(1)),
            ("head_dim", json!(7)),
            ("head_dim", json!(20_000_000_000u64)),
            ("num_key_value_heads", json!(8)),
            ("num_key_value_heads", json!(3)),
            ("num_key_value_heads", json!(0)),
            ("num_attention_heads", json!(0)),
            ("num_attention_heads", json!(u64::MAX)),
            ("num_hidden_layers", json!(1_000_000_000_000_000_000u64)),
            ("vocab_size", json!(1_000_000_000_000u64)),
            ("hidden_size", json!(0)),
            ("hidden_size", json!(10_000_000)),
            ("intermediate_size", json!(u64::MAX)),
            ("rope_theta", json!(0)),
            ("rope_theta", json!(-1.0)),
            ("rope_theta", json!(1e300)),
            ("rms_norm_eps", json!(-1.0)),
            ("query_pre_attn_scalar", json!(-4)),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0})),
            ("rope_parameters", json!({"full_attention": {"rope_theta": 0}})),
        ] {
            let mut config = config.clone();
            config[key] = bad;
            let e = check(&config).expect_err(key);
            assert!(e.is::<InputError>() && e.to_string().contains(key), "{e}");
        }
        // Of the width that the other two give, too.
        let odd = json!({"hidden_size": 21, "num_attention_heads": 3});
        assert!(check(&odd).unwrap_err().to_string().contains("head_dim = 7"));
    }
}
