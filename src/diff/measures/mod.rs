//! The measures of an analysis, one file each.

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
pub mod weights;
