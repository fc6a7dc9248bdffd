//! The rotary embedding that a `config.json` asks for.
//!
//! `rope_theta` with an optional `rope_scaling` (transformers 4), or both inside `rope_parameters`
//! (transformers 5), where Gemma 3 has one entry for each kind of layer.

use std::f32::consts::PI;

use anyhow::Result;
use serde_json::Value;

use crate::bail_input;
use crate::ops::rope::Rotary;

/// The rotary embedding of all layers of a model, base `theta` where the config names none.
///
/// # Errors
/// An input error if the config asks for a kind of scaling that is not built here.
pub fn from_config(config: &Value, head_dim: usize, theta: f64) -> Result<Rotary> {
    let parameters = match &config["rope_parameters"] {
        Value::Null => &config["rope_scaling"],
        parameters => parameters,
    };
    let theta = parameters["rope_theta"].as_f64().or(config["rope_theta"].as_f64()).unwrap_or(theta);
    scaled(config, parameters, head_dim, theta)
}

/// The rotary embedding for one kind of layer (`full_attention`, `sliding_attention`) where
/// `rope_parameters` tells kinds apart; `theta` and `scaling` are used where it does not.
///
/// # Errors
/// As [`from_config`].
pub fn for_layer_type(
    config: &Value,
    kind: &str,
    head_dim: usize,
    theta: f64,
    scaling: &Value,
) -> Result<Rotary> {
    let parameters = &config["rope_parameters"][kind];
    if parameters.is_null() {
        return scaled(config, scaling, head_dim, theta);
    }
    scaled(config, parameters, head_dim, parameters["rope_theta"].as_f64().unwrap_or(theta))
}

/// Positions that a model was trained on before its context was extended: a key of the config or of its rope scaling, or
/// `max_position_embeddings`, as in transformers (`standardize_rope_params`).
pub fn original_context(config: &Value, scaling: &Value) -> Option<f64> {
    let key = "original_max_position_embeddings";
    [&config[key], &scaling[key], &config["max_position_embeddings"]].into_iter().find_map(Value::as_f64)
}

/// transformers' `modeling_rope_utils.py`, in f32 as there.
fn scaled(config: &Value, scaling: &Value, head_dim: usize, theta: f64) -> Result<Rotary> {
    let mut inv_freq: Vec<f32> =
        (0..head_dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
    let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default");
    let number = |key: &str| -> Result<f32> {
        match scaling[key].as_f64() {
            Some(v) => Ok(v as f32),
            None => bail_input!("config.json: rope scaling {kind:?} without {key}"),
        }
    };
    let original = || match original_context(config, scaling) {
        Some(positions) => Ok(positions),
        None => bail_input!("config.json: rope scaling {kind:?} without original_max_position_embeddings"),
    };
    for (place, parameters) in [("config.json", config), ("config.json: rope scaling", scaling)] {
        if let Some(share) = parameters["partial_rotary_factor"].as_f64().filter(|share| *share != 1.0) {
            bail_input!("{place}: partial_rotary_factor = {share} is not supported; expected 1");
        }
    }
    let mut magnitude = 1.0;
    match kind {
        "default" => {}
        "linear" => {
            let factor = number("factor")?;
            inv_freq.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => {
            let factor = number("factor")?;
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            let original = original()? as f32;
            for f in &mut inv_freq {
                let wavelength = 2.0 * PI / *f;
                if wavelength > original / low {
                    *f /= factor;
                } else if wavelength >= original / high {
                    let smooth = (original / wavelength - low) / (high - low);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
        }
        "yarn" => {
            let factor = match (scaling.get("factor"), config["max_position_embeddings"].as_f64()) {
                (Some(Value::Null), Some(positions)) => positions / original()?,
                _ => f64::from(number("factor")?),
            };
            magnitude = yarn(scaling, original()?, factor, theta, &mut inv_freq) as f32;
        }
        other => bail_input!(
            "config.json: rope scaling {other:?} is not supported; supported: default, linear, llama3, yarn"
        ),
    }
    Ok(Rotary::new(inv_freq, magnitude))
}

/// YaRN (Peng et al., arXiv 2309.00071, section 3.2): frequencies that turn often within the `original` context stay, those
/// that turn little are divided by `factor`, and between them there is a ramp. Returns what cos and sin are multiplied by.
fn yarn(scaling: &Value, original: f64, factor: f64, theta: f64, inv_freq: &mut [f32]) -> f64 {
    // As in Python's `or`, 0 is as if the key were absent.
    let given = |key: &str| scaling[key].as_f64().filter(|value| *value != 0.0);
    let width = 2.0 * inv_freq.len() as f64;
    // The frequency, counted from 0, that turns so often within the original context.
    let turning =
        |times: f64| width * (original / (times * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) =
        (turning(given("beta_fast").unwrap_or(32.0)), turning(given("beta_slow").unwrap_or(1.0)));
    if scaling["truncate"] != false {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(width - 1.0));
    if low == high {
        high += 0.001;
    }
    for (i, f) in inv_freq.iter_mut().enumerate() {
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let stays = 1.0 - ramp;
        *f = *f / factor as f32 * (1.0 - stays) + *f * stays;
    }
    let magnitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    scaling["attention_factor"].as_f64().unwrap_or_else(|| match (given("mscale"), given("mscale_all_dim")) {
        (Some(scale), Some(all)) => magnitude(scale) / magnitude(all),
        _ => magnitude(1.0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expected values from transformers 5.23 (`ROPE_INIT_FUNCTIONS["yarn"]`), for heads of 24.
    #[test]
    fn yarn_is_that_of_transformers() -> Result<()> {
        for (config, inv_freq, magnitude) in [
            (
                json!({"rope_theta": 1e4, "max_position_embeddings": 128, "rope_scaling":
                    {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
                [
                    1.0,
                    0.34811914,
                    0.10772172,
                    0.025,
                    0.011603971,
                    0.0053860871,
                    0.0024999999,
                    0.0011603974,
                    0.00053860858,
                    0.00025000001,
                    0.00011603974,
                    5.3860855e-05,
                ],
                1.138_629_4,
            ),
            (
                json!({"max_position_embeddings": 128, "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 1e6, "factor": 40.0, "beta_fast": 16, "beta_slow": 2,
                    "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": false}}),
                [
                    1.0,
                    0.18134095,
                    0.003363715,
                    0.00079056947,
                    0.00024999998,
                    7.9056947e-05,
                    2.4999999e-05,
                    7.9056963e-06,
                    2.4999993e-06,
                    7.905694e-07,
                    2.5000008e-07,
                    7.9056917e-08,
                ],
                1.155_722,
            ),
            (
                json!({"rope_theta": 1e4, "max_position_embeddings": 128, "rope_scaling": {"rope_type": "yarn",
                    "factor": null, "attention_factor": 1.25, "original_max_position_embeddings": 64}}),
                [
                    1.0,
                    0.40613902,
                    0.16158259,
                    0.0625,
                    0.023207942,
                    0.010772174,
                    0.0049999999,
                    0.0023207949,
                    0.0010772172,
                    0.00050000002,
                    0.00023207947,
                    0.00010772171,
                ],
                1.25,
            ),
        ] {
            let rotary = from_config(&config, 24, 10_000.0)?;
            assert!((rotary.magnitude() - magnitude).abs() < 1e-6, "{config}: {}", rotary.magnitude());
            for (ours, theirs) in rotary.inv_freq().iter().zip(inv_freq) {
                assert!(
                    (f64::from(*ours) / theirs - 1.0f64).abs() < 2e-6,
                    "{config}: {ours}, transformers has {theirs}"
                );
            }
        }
        let refused = |config: Value| from_config(&config, 24, 1e4).expect_err("refused").to_string();
        let longrope = json!({"rope_scaling": {"type": "longrope", "factor": 4.0}});
        assert!(refused(longrope).contains("\"longrope\" is not supported"));
        assert!(refused(json!({"partial_rotary_factor": 0.5})).contains("partial_rotary_factor = 0.5"));
        Ok(())
    }
}
