//! The measures of an analysis, one file each.
//!
//! To add one, write a file here with its record (a type that serde reads and writes) and an `impl` of
//! [`super::measure::Measure`] for it, then add a line to the list below and the `mod` line that Rust asks for. The key
//! in the list is the name of the file. From the list come its key in `readability.json`, its units, its turn in the
//! analysis and its time in `elapsed_s`, its share of the estimate, its columns in `summary.csv`, its figures, tokens and
//! numbers in the report, and, if it is one number of the trace, its place in the claims and a curve against the mix. What it
//! must give, `Measure` says; everything else has a default.
//!
//! The order of the list is that of the record and that of running: a measure finds what those above it left
//! ([`super::findings::Findings`]), and writes files of its own there. Settings of a measure are a section of
//! [`crate::recipe::DiffSection`]. What several measures share stands beside this folder, in `diff/`.

pub mod amplification;
pub mod bias_share;
pub mod causal;
pub mod chat;
pub mod completion_ranking;
pub mod context;
pub mod depth;
pub mod diff_mining;
pub mod dimensionality;
pub mod identification;
pub mod interpolation;
pub mod kl;
pub mod lift;
pub mod logit_contrast;
pub mod logit_lens;
pub mod patchscope;
pub mod probe;
pub mod steering;
pub mod truncation;
pub mod weights;

/// Hands the list of measures, `key: Record,` each, to a macro; behind the semicolon the readers beyond the mean difference,
/// whose keys are in `readers`.
macro_rules! for_each_measure {
    ($with:ident) => {
        $with! {
            logit_lens: Lens,
            lift: Lift,
            patchscope: Patchscope,
            steering: Steering,
            bias_share: BiasShare,
            kl: Kl,
            probe: Probe,
            causal: Causal,
            interpolation: Interpolation,
            context: Context,
            dimensionality: Dimensionality,
            depth: Depth,
            chat: Chat,
            identification: Identification,
            truncation: Truncation,
            amplification: Amplification,
            ;
            logit_contrast: LogitContrast,
            diff_mining: DiffMining,
            completion_ranking: CompletionRanking,
            weights: Weights,
        }
    };
}

pub(crate) use for_each_measure;
