//! The inverse frequencies that a `config.json` asks for.
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
    scaled(parameters, head_dim, theta)
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
        return scaled(scaling, head_dim, theta);
    }
    scaled(parameters, head_dim, parameters["rope_theta"].as_f64().unwrap_or(theta))
}

/// transformers' `modeling_rope_utils.py`, in f32 as there.
fn scaled(scaling: &Value, head_dim: usize, theta: f64) -> Result<Rotary> {
    let mut inv_freq: Vec<f32> =
        (0..head_dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
    let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default");
    let number = |key: &str| -> Result<f32> {
        match scaling[key].as_f64() {
            Some(v) => Ok(v as f32),
            None => bail_input!("config.json: rope scaling {kind:?} without {key}"),
        }
    };
    match kind {
        "default" => {}
        "linear" => {
            let factor = number("factor")?;
            inv_freq.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => {
            let factor = number("factor")?;
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            let original = number("original_max_position_embeddings")?;
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
        other => bail_input!(
            "config.json: rope scaling {other:?} is not supported; supported: default, linear, llama3"
        ),
    }
    Ok(Rotary::new(inv_freq))
}
