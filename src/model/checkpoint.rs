//! Files that hold tensors and JSON, written so that a reader sees the old content or the new, never half.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};

/// Writes bytes to a neighbour, flushes them to the disk, then renames: the file is whole or as before.
///
/// # Errors
/// If the folder is not writable or the disk is full; the neighbour is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().context("a file name")?.to_string_lossy();
    let neighbour = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&neighbour)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&neighbour, path)
    };
    write().map_err(|e| {
        std::fs::remove_file(&neighbour).ok();
        anyhow::Error::new(e).context(format!("writing {}", path.display()))
    })
}

/// Writes indented JSON with a closing newline.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_atomically(path, text.as_bytes())
}

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
