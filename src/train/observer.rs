//! Who looks at the model while it trains. Training knows no measure of the trace: whoever starts it brings one.

use std::collections::BTreeMap;

use anyhow::Result;

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
}

/// Nobody looks.
impl Observer for () {
    fn observe(&mut self, _: &Pretrained, _: View, _: View) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }
}
