//! Who looks at the model while it trains. Training knows no measure of the trace or of behaviour: whoever starts it brings
//! them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::matching::{HalfReading, ItemHalf};
use crate::model::View;
use crate::model::load::source::Pretrained;

/// Measures a model between two steps.
pub trait Observer {
    /// Values by the names that `metrics.jsonl` gives them. They must depend on the weights alone, or a resumed run would
    /// not be the one that was never interrupted.
    ///
    /// # Errors
    /// Whatever the measures return; training ends with it, and can be resumed.
    fn observe(&mut self, pretrained: &Pretrained, base: View, tuned: View) -> Result<BTreeMap<String, f64>>;

    /// The behaviour that `[train.match]` names, on one half of its items; it must depend on the weights alone too.
    ///
    /// # Errors
    /// As [`Self::observe`]; if it was made for no behaviour.
    fn behaviour(
        &mut self,
        half: ItemHalf,
        pretrained: &Pretrained,
        base: View,
        tuned: View,
    ) -> Result<HalfReading>;

    /// sha256 of the files that [`Self::behaviour`] reads, by path.
    fn items(&self) -> BTreeMap<String, String>;
}

/// Nobody looks.
impl Observer for () {
    fn observe(&mut self, _: &Pretrained, _: View, _: View) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }

    fn behaviour(&mut self, _: ItemHalf, _: &Pretrained, _: View, _: View) -> Result<HalfReading> {
        bail!("train.match: nobody measures the behaviour of this training")
    }

    fn items(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}
