//! What computes: two runs of one recipe have the same bytes where all of this is the same.

use serde::{Deserialize, Serialize};

use crate::device::device_name;

/// A device, its processor and the number of threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// [`device_name`]: `cpu`, `metal`, or model and compute capability of a GPU.
    pub device: String,
    /// Architecture, vector instructions and model of the processor: kernels and the sizes of their blocks, hence
    /// the order of sums, are chosen by them. Empty in manifests that do not tell.
    #[serde(default)]
    pub processor: String,
    /// Threads that compute.
    pub threads: usize,
}

impl Machine {
    /// The one that this process runs on.
    pub fn here() -> Self {
        Self { device: device_name(), processor: processor(), threads: rayon::current_num_threads() }
    }

    /// What differs from another machine, in words; empty where nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.threads.to_string(), other.threads.to_string());
        let parts = [
            ("device", &self.device, &other.device),
            ("processor", &self.processor, &other.processor),
            ("threads", &ours, &theirs),
        ];
        let told = |text: &String| if text.is_empty() { "unknown".into() } else { text.clone() };
        let differing = parts.into_iter().filter(|(_, ours, theirs)| ours != theirs);
        differing.map(|(what, ours, theirs)| format!("{what} {}, not {}", told(ours), told(theirs))).collect()
    }
}

fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| Some(line.split_once(':')?.1.trim()));
    [Some(std::env::consts::ARCH), vectors(), model].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The widest vector instructions that kernels use.
#[cfg(target_arch = "x86_64")]
fn vectors() -> Option<&'static str> {
    if cfg!(feature = "avx512") && is_x86_feature_detected!("avx512f") {
        Some("avx512")
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Some("avx2")
    } else {
        None
    }
}

/// Elsewhere they come with the architecture.
#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> Option<&'static str> {
    None
}
