//! The models that are known by a short name.

pub use crate::model::load::alias::{Listed, fetch, list};
