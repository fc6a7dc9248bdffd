//! Tensors in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use crate::atomic::write_atomically;

/// Writes f32 tensors as safetensors with `format = pt`, which transformers and PEFT ask for.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, t) in tensors {
        let data = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let data: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.push((name.as_str(), t.dims().to_vec(), data));
    }
    let views = bytes
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    write_atomically(path, &safetensors::serialize(views, metadata)?)
}
