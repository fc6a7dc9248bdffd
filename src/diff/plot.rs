//! What a measure shows of itself, as plain data.

/// What a series stands for. The report gives each one colour and one mark everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Logit lens.
    Lens,
    /// Patchscope.
    Patchscope,
    /// Lift of the narrow words.
    Lift,
    /// A constant bias.
    Bias,
    /// A probe with labelled examples.
    Probe,
    /// Steered text.
    Steered,
    /// Unsteered text, and what comes from the base model.
    Base,
    /// What comes from the tuned model's mean activation.
    Tuned,
    /// Narrow text.
    Narrow,
    /// Pretraining text.
    Pretraining,
    /// General conversations.
    Chat,
    /// Everything together.
    Total,
}
