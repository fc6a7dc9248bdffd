//! What training changes.

use std::collections::BTreeMap;

use candle_core::Var;

/// What is trained, by name, in an order that does not vary. What belongs to an adapter is named as in PEFT's
/// files ([`crate::model::lora`]).
pub type Trainables = BTreeMap<String, Var>;
