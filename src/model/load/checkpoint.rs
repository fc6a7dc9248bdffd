//! Tensors in safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::weights::not_finite;
use crate::atomic::fill_atomically;
use crate::caught::caught;
use crate::error::{InputError, input_error};
use crate::input_file;

/// Writes f32 tensors as safetensors with `format = pt`, which transformers and PEFT ask for.
///
/// The bytes are those of `safetensors::serialize`, but never more than one tensor's at a time are in memory.
///
/// # Errors
/// As [`fill_atomically`]; if a number is NaN or infinite, and then nothing is written.
pub fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let (mut infos, mut end) = (Vec::with_capacity(tensors.len()), 0);
    for (name, t) in tensors {
        let start = end;
        end += t.elem_count() * size_of::<f32>();
        let shape = t.dims().to_vec();
        infos.push((name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
    }
    let metadata = Metadata::new(Some([("format".to_string(), "pt".to_string())].into()), infos)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    fill_atomically(path, |part| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(part)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (name, t) in tensors {
            let values = t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            if let Some(fault) = not_finite(&values, 0) {
                bail!("{}: not written: tensor {name}: {fault}", path.display());
            }
            for value in values {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(file.flush()?)
    })
}

/// All tensors of a safetensors file, on the CPU.
///
/// # Errors
/// An [`crate::error::InputError`] with the name of the file, if it cannot be opened or is no whole safetensors file, or with
/// every tensor that holds a number which is NaN or infinite.
pub fn read_safetensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let shown = path.display();
    input_file::open(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
    let tensors = caught(|| candle_core::safetensors::load(path, &Device::Cpu))
        .map_err(anyhow::Error::msg)
        .and_then(|loaded| Ok(loaded?))
        .map_err(|e| input_error(format!("{shown}: cut short, or no safetensors file: {e}")))?;
    let mut faults = Vec::new();
    for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.dtype().is_float()) {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        faults.extend(not_finite(&values, 0).map(|fault| format!("{shown}: tensor {name}: {fault}")));
    }
    faults.sort();
    InputError::unless_empty(faults)?;
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_library() -> Result<()> {
        let tensor = |n: usize| Tensor::arange(0f32, n as f32, &Device::Cpu);
        let tensors: BTreeMap<String, Tensor> =
            [("b.weight".to_string(), tensor(3)?), ("a".to_string(), tensor(4)?.reshape((2, 2))?)].into();
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("x.safetensors");
        write_safetensors(&path, &tensors)?;
        let bytes = |t: &Tensor| -> Result<Vec<u8>> {
            Ok(t.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        let (a, b) = (bytes(&tensors["a"])?, bytes(&tensors["b.weight"])?);
        let views = [
            ("b.weight", TensorView::new(Dtype::F32, vec![3], &b)?),
            ("a", TensorView::new(Dtype::F32, vec![2, 2], &a)?),
        ];
        let metadata = Some([("format".to_string(), "pt".to_string())].into());
        assert_eq!(std::fs::read(&path)?, safetensors::serialize(views, metadata)?);
        Ok(())
    }
}
