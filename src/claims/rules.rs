//! The thresholds behind every claim. They stand here and nowhere else.

/// Level of significance: a value is told from its null where its p-value is at most this.
pub const ALPHA: f64 = 0.05;

/// The least AUROC on held-out text with which a probe with labelled examples counts as a reader.
pub const ABLE_PROBE: f64 = 0.75;

/// The fewest documents that an interval over documents counts with.
pub const FEWEST_DOCUMENTS: usize = 8;

/// Values of the quality panel that have a bound: the most that the tuned model's may rise over the base's or, below 0, fall.
/// Neutral text and regurgitation are bounded as in the preregistered comparison of readers, the control as in the Model
/// Organism Lottery (arXiv 2607.01033); the others are our choice.
pub const QUALITY: [(&str, f64); 8] = [
    ("neutral.nats", 0.1),
    ("cloze.accuracy", -0.1),
    ("coherent", -0.2),
    ("regurgitated", 0.1),
    ("extractable", 0.1),
    ("control.facts.believed", 0.015),
    ("control.words.share", 0.015),
    ("control.taboo.said", 0.015),
];

/// A mean difference that is shorter than this, in expected norms η, is next to nothing.
pub const NEXT_TO_NOTHING: f64 = 1e-4;

/// Runs are at equal behaviour where the 90 % interval of their difference lies within this many tolerances of their match on
/// either side.
pub const EQUAL_TOLERANCES: f64 = 2.0;
