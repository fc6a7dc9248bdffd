//! Numbers of JSON documents and of tensors, and how they are compared.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// A JSON file.
pub fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The values of JSON lines.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Takes the time of each reader out of a `readability.json`.
#[track_caller]
pub fn remove_reader_times(record: &mut Value) {
    if let Some(readers) = record.get_mut("readers").and_then(Value::as_object_mut) {
        for reader in readers.values_mut() {
            assert!(reader.as_object_mut().unwrap().shift_remove("seconds").is_some(), "no seconds");
        }
    }
}

/// A JSON number.
#[track_caller]
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A JSON array of numbers.
#[track_caller]
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// The tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// All numbers of a tensor.
pub fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖ours − theirs‖ / ‖theirs‖ (L2), in f64.
#[track_caller]
pub fn deviation(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.dims(), theirs.dims(), "shapes differ");
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (ours, theirs) = (flat(ours), flat(theirs));
    let difference: f64 = ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = theirs.iter().map(|b| b * b).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// Every part must be in the text.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
