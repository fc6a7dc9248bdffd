//! The rules behind the claims, as they are printed beside them. The thresholds themselves are [`crate::claims::rules`].

/// Behind whether a run is readable.
pub const READABLE_RULE: &str = "A run counts as readable by a decoding measure (logit lens, patchscope) if at one of \
its positions at least the share of relevant tokens has p ≤ 0.05 against random directions, as \
readable by lift if the AUROC of the narrow words, mean over positions, has p ≤ 0.05 against single random directions, and as \
readable by steering if at one of its positions at least the 95 % intervals of the gain in similarity over plain text and, where it was written, over text steered by random \
directions lie above 0. \
The gain is over the same model’s plain text: it tells whether the difference steers, not how far. Where plain text \
is about the narrow subject already, little is left to gain; to compare runs, compare the steered similarity. \
Nothing is corrected for trying several positions (lift tries none): with five positions and no trace at all, up to one run in \
four would still pass at some position, so the number of positions that pass is given. \
“Not distinguishable” is about these measures with this many samples; it does not say that the \
finetuning left no trace, nor that the model behaves like its base.";

/// Behind the verdict.
pub const VERDICT_RULE: &str = "A reader reads the trace if its score exceeds the floor of other organisms, read with the same \
lexicon and settings: the one-sided p of z = excess / (sd·√(1 + 1/n)) under Student’s t with n − 1 degrees of freedom, corrected \
by Holm’s method, is at most 0.05. The readers that claims.primaries names beforehand are one family; all others explore, and \
are another. A measure of activation differences must exceed its own null too. Without a floor, contrast text, diff mining, \
completion ranking and the weights make no claim, and the others are compared with their own null alone. “Hidden” means that no \
measure of activation differences reads the trace and another reader does. “Not read” is about these readers at these sizes; it \
does not say that the finetuning left no trace.";

/// Behind where a measure meets its null.
pub const MEETS_NULL_RULE: &str = "A measure meets its null at a ratio if at that ratio and at every higher one no more than \
half of the runs are told from it: by p ≤ 0.05 against random directions (lift; logit lens and patchscope at one \
position at least), by the 95 % intervals of the gain over plain text and over random directions above 0 (steering, at one position at least), by the \
95 % interval above 0 (specific share), by the 95 % interval above what one direction about nothing in 20 exceeds (probe with \
labelled examples; one that cannot tell held-out texts apart is not counted). It is a statement about the ratios and runs that were made; the true ratio may lie \
between two of them.";
