//! `[model]`: where an organism starts.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `[model]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// `MODEL`: alias, `hf:org/name[@revision]`, folder, or `.gguf` file.
    pub base: String,
    /// How the frozen matrices lie in memory.
    pub dtype: ModelDtype,
}

/// How the frozen matrices of a model lie in memory. All sums are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModelDtype {
    /// As f32.
    #[default]
    F32,
    /// As a GGUF file has them: the same numbers, added up in another order.
    Native,
    /// As bf16 (Kalamkar et al., arXiv 1905.12322): half the memory of f32. Numbers that a file has in more bits are rounded.
    #[value(name = "bf16")]
    #[serde(rename = "bf16")]
    Bf16,
}

impl ModelDtype {
    /// What a recipe calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Native => "native",
            Self::Bf16 => "bf16",
        }
    }
}
