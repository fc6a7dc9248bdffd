//! The folder of an analysis: what `trainer diff` writes and every other command reads.
//!
//! `readability.json`, `activations.safetensors`, `logit_lens.jsonl`, `patchscope.jsonl`, `steering.jsonl` and, with the
//! hashes of all of them, `sha256.json`. A file of a measure that was not run is not there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::Analysis;
use super::decode::{Decoded, TopToken};
use super::hashes::{self, Hashes};
use super::measures::steering::{self, SteeringLine};
use super::measures::{logit_lens, patchscope};
use super::record::Readability;
use super::shape;
use crate::atomic::{write_atomically, write_folder, write_json};
use crate::bail_input;
use crate::error::{InputError, input_error};
use crate::json;
use crate::model::load::checkpoint::{read_safetensors, write_safetensors};
use crate::sha256::{sha256_content, sha256_tree};

/// Every number of the analysis.
pub const READABILITY: &str = "readability.json";
/// Mean activations and their difference, `[positions, hidden]`.
const ACTIVATIONS: &str = "activations.safetensors";

/// The folder of the analysis in a run folder (`diff/`), or the folder itself where `trainer diff --out` wrote into it.
/// It need not be there.
pub fn folder_of(dir: &Path) -> PathBuf {
    let within = dir.join("diff");
    match !within.join(READABILITY).is_file() && dir.join(READABILITY).is_file() {
        true => dir.to_path_buf(),
        false => within,
    }
}

/// `readability.json` of the folder of an analysis; `None` if it is not there.
///
/// # Errors
/// An [`InputError`] if it is not that of this version, or its arrays do not fit its positions.
pub fn read_readability(folder: &Path) -> Result<Option<Readability>> {
    let path = folder.join(READABILITY);
    let Some(record) = json::read::<Readability>(&path)? else { return Ok(None) };
    let in_file = |fault| format!("{}: {fault}", path.display());
    InputError::unless_empty(shape::faults(&record).into_iter().map(in_file).collect())?;
    Ok(Some(record))
}

/// `steering.jsonl` of the folder of an analysis; `None` if it is not there.
///
/// # Errors
/// An [`InputError`] with the first line that is damaged.
pub fn read_steering(folder: &Path) -> Result<Option<Vec<SteeringLine>>> {
    json::read_lines(&folder.join(steering::FILE))
}

/// What `trainer diff` wrote, but for the activations. A file that is not there is an empty list here.
#[derive(Debug, Clone)]
pub struct StoredAnalysis {
    /// The folder.
    pub dir: PathBuf,
    /// `readability.json`.
    pub record: Readability,
    /// `logit_lens.jsonl`.
    pub logit_lens: Vec<Decoded>,
    /// `patchscope.jsonl`.
    pub patchscope: Vec<Decoded>,
    /// `steering.jsonl`.
    pub steering: Vec<SteeringLine>,
}

impl StoredAnalysis {
    /// Reads the analysis in a run folder, or in a folder that `trainer diff --out` wrote.
    ///
    /// # Errors
    /// An [`InputError`] if there is none, or a file is damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        let folder = folder_of(dir);
        let Some(record) = read_readability(&folder)? else {
            bail_input!(
                "{}: holds no analysis (diff/readability.json); make one with: trainer diff {}",
                dir.display(),
                dir.display()
            );
        };
        let has = [record.logit_lens.is_some(), record.patchscope.is_some(), record.steering.is_some()];
        let stored = Self {
            record,
            logit_lens: json::read_lines(&folder.join(logit_lens::FILE))?.unwrap_or_default(),
            patchscope: json::read_lines(&folder.join(patchscope::FILE))?.unwrap_or_default(),
            steering: read_steering(&folder)?.unwrap_or_default(),
            dir: folder,
        };
        let lines = [stored.logit_lens.len(), stored.patchscope.len(), stored.steering.len()];
        let files = [logit_lens::FILE, patchscope::FILE, steering::FILE];
        for ((file, has), lines) in files.iter().zip(has).zip(lines) {
            if has && lines == 0 {
                bail_input!(
                    "{}: missing or empty, but {READABILITY} refers to it; expected the folder as trainer diff wrote it",
                    stored.dir.join(file).display()
                );
            }
        }
        Ok(stored)
    }

    /// v_p of each position, `[positions][hidden]`.
    ///
    /// # Errors
    /// An [`InputError`] if `activations.safetensors` is missing or damaged.
    pub fn differences(&self) -> Result<Vec<Vec<f32>>> {
        let path = self.dir.join(ACTIVATIONS);
        let tensors = read_safetensors(&path)?;
        let fault = |e: anyhow::Error| input_error(format!("{}: {e:#}", path.display()));
        let tensor = tensors.get("mean_difference").context("no mean_difference").map_err(fault)?;
        tensor.to_vec2::<f32>().map_err(|e| fault(e.into()))
    }

    /// What a position decodes to under the patchscope at the chosen scale: scale and tokens.
    pub fn patchscope_at(&self, position: usize) -> Option<(f64, &[TopToken])> {
        let scope = self.record.patchscope.as_ref()?;
        let at = scope.positions(&self.record.positions).iter().position(|p| *p == position)?;
        Some((scope.best_scale[at], &scope.top_tokens[at]))
    }

    /// Where a position stands in the lists of the record.
    pub fn index(&self, position: usize) -> Option<usize> {
        self.record.positions.iter().position(|p| *p == position)
    }
}

impl Analysis {
    /// Writes all files into a new folder, which gets its name when it is whole. `read` tells what was read.
    ///
    /// # Errors
    /// An input error if the folder exists; otherwise if the disk is full.
    pub fn write(&self, dir: &Path, read: &Hashes) -> Result<()> {
        must_be_new(dir)?;
        write_folder(dir, |part| {
            let rows = |v: &[Vec<f32>]| Tensor::from_vec(v.concat(), (v.len(), v[0].len()), &Device::Cpu);
            let positions: Vec<u32> = self.record.positions.iter().map(|p| *p as u32).collect();
            let positions = Tensor::new(positions, &Device::Cpu)?;
            let mut tensors: BTreeMap<String, Tensor> = BTreeMap::from([("positions".into(), positions)]);
            for (prefix, means) in &self.means {
                tensors.insert(format!("{prefix}mean_difference"), rows(&means.difference)?);
                tensors.insert(format!("{prefix}base_mean"), rows(&means.base)?);
                tensors.insert(format!("{prefix}tuned_mean"), rows(&means.tuned)?);
            }
            write_safetensors(&part.join(ACTIVATIONS), &tensors)?;
            for (name, content) in &self.files {
                write_atomically(&part.join(name), content.as_bytes())?;
            }
            write_json(&part.join(READABILITY), &self.record)?;
            let files = sha256_tree(part, part)?;
            write_json(&part.join(hashes::FILE), &Hashes { files, ..read.clone() })
        })
    }
}

/// Writes `readability.json` of a finished analysis anew, with its hash.
///
/// # Errors
/// If a file is damaged, or cannot be written.
pub fn rewrite_readability(folder: &Path, record: &Readability) -> Result<()> {
    let path = folder.join(READABILITY);
    write_json(&path, record)?;
    let place = folder.join(hashes::FILE);
    if let Some(mut of_files) = Hashes::read(&place)? {
        of_files.files.insert(READABILITY.into(), sha256_content(&path)?);
        write_json(&place, &of_files)?;
    }
    Ok(())
}

/// Refuses to write over an analysis.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_new(dir: &Path) -> Result<()> {
    if dir.exists() {
        bail_input!("{}: exists already; remove it or choose another --out", dir.display());
    }
    Ok(())
}
