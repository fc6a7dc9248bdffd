//! The folder of an analysis, read back.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::de::DeserializeOwned;

use super::decode::Decoded;
use super::decode::TopToken;
use super::measures::steering::SteeringLine;
use super::record::Readability;
use crate::bail_input;
use crate::error::input_error;

/// What `trainer diff` wrote, but for the activations. A file of a measure that was not run is an empty list here.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The folder.
    pub dir: PathBuf,
    /// `readability.json`.
    pub record: Readability,
    /// `logit_lens.jsonl`; also empty in the folders of earlier versions.
    pub logit_lens: Vec<Decoded>,
    /// `patchscope.jsonl`; also empty in the folders of earlier versions.
    pub patchscope: Vec<Decoded>,
    /// `steering.jsonl`.
    pub steering: Vec<SteeringLine>,
}

impl Stored {
    /// Reads the analysis in a run folder, or in a folder that `trainer diff --out` wrote.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there is none, or a file is damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        let candidates = [dir.join("diff"), dir.to_path_buf()];
        let Some(dir) = candidates.into_iter().find(|d| d.join("readability.json").is_file()) else {
            bail_input!(
                "{}: holds no analysis (diff/readability.json); make one with: trainer diff {}",
                dir.display(),
                dir.display()
            );
        };
        let path = dir.join("readability.json");
        let text = read(&path)?;
        let record: Readability =
            serde_json::from_str(&text).map_err(|e| input_error(format!("{}: {e}", path.display())))?;
        let stored = Self {
            logit_lens: lines(&dir.join("logit_lens.jsonl"))?,
            patchscope: lines(&dir.join("patchscope.jsonl"))?,
            steering: lines(&dir.join("steering.jsonl"))?,
            record,
            dir,
        };
        stored.check_shape()?;
        Ok(stored)
    }

    /// That lists of positions are as long as `positions`: later code counts on it.
    fn check_shape(&self) -> Result<()> {
        let n = self.record.positions.len();
        let lens = self.record.logit_lens.iter().map(|l| ("logit_lens.top_tokens", l.top_tokens.len()));
        let patchscope = self.record.patchscope.iter().flat_map(|p| {
            // As many as its own positions, which may be fewer.
            let missing = n - p.positions(&self.record.positions).len().min(n);
            [
                ("patchscope.top_tokens", p.top_tokens.len() + missing),
                ("patchscope.best_scale", p.best_scale.len() + missing),
            ]
        });
        let norms = [
            ("delta_norm", self.record.delta_norm.len()),
            ("expected_norm", self.record.expected_norm.len()),
        ];
        for (key, found) in lens.chain(patchscope).chain(norms) {
            if found != n {
                let path = self.dir.join("readability.json");
                bail_input!("{}: {key} has {found} entries, positions has {n}", path.display());
            }
        }
        Ok(())
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

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| input_error(format!("{}: {e}", path.display())))
}

/// The lines of a file; none if there is no file.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| input_error(format!("{}:{}: {e}", path.display(), i + 1)))
    };
    read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}
