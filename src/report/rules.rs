//! The rules behind the claims, as they are printed beside them. The thresholds themselves are [`crate::claims::rules`].

/// Behind whether a run is readable.
pub const READABLE_RULE: &str = "\
A run counts as readable by a decoding measure (logit lens, patchscope) if the share of relevant tokens has p ≤ 0.05 \
against random directions at one position at least. It counts as readable by lift if the AUROC of the narrow words, mean \
over positions, has p ≤ 0.05 against single random directions. It counts as readable by steering if, at one position at \
least, the 95 % interval of the gain in similarity over plain text is above 0; where text steered by random directions \
was written, the interval of the gain over it must be above 0 too. The gain is over the same model’s plain text: it \
shows whether the difference steers, not how far. Where plain text is about the narrow subject already, little gain is \
left; to compare runs, compare the steered similarity. There is no correction for trying several positions (lift tries \
none): with five positions and no trace at all, up to one run in four would still pass at some position, so the number \
of positions that pass is given. “Not distinguishable” is about these measures with this many samples. It does not say \
that the finetuning left no trace, nor that the model behaves like its base.";

/// Behind the verdict.
pub const VERDICT_RULE: &str = "\
A reader reads the trace if its score exceeds the floor of other organisms, measured with the same lexicon and settings. \
The test: the one-sided p of z = excess / (sd·√(1 + 1/n)) under Student’s t with n − 1 degrees of freedom, corrected by \
Holm’s method, is at most 0.05. The readers that claims.primaries names beforehand are one family for this correction; \
all other readers are exploratory and form another family. A measure of activation differences must exceed its own null \
too. Without a floor, contrast text, diff mining, completion ranking and the weights make no claim, and the other \
readers are compared with their own null alone. “Hidden” means that no measure of activation differences reads the trace \
and another reader does. “Not read” is about these readers at these sizes. It does not say that the finetuning left no \
trace.";

/// Behind where a measure meets its null.
pub const MEETS_NULL_RULE: &str = "\
A measure meets its null at a ratio if, at that ratio and at every higher one, at most half of the runs are \
distinguishable from the null. A run is distinguishable by lift, logit lens or patchscope if p ≤ 0.05 against random \
directions (logit lens and patchscope: at one position at least); by steering if the 95 % intervals of the gain over \
plain text and over random directions are above 0 at one position at least; by the specific share if its 95 % interval \
is above 0; by the probe with labelled examples if its 95 % interval is above the value that one random direction in 20 \
exceeds (a probe that cannot separate held-out texts is not counted). The statement covers the ratios and runs that were \
made; the true ratio may be between two of them.";
