//! Colours and marks: what a line stands for has the same ones on every figure.

use plotters::style::RGBColor;

/// What a line stands for; each has one colour (and dash) everywhere on the page.
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

impl Ink {
    /// The colour.
    pub fn color(self) -> RGBColor {
        match self {
            Ink::Lens => RGBColor(0x1F, 0x6F, 0xB4),
            Ink::Patchscope => RGBColor(0xC4, 0x54, 0x0A),
            Ink::Lift => RGBColor(0x6B, 0x6B, 0x00),
            Ink::Bias => RGBColor(0x8C, 0x4A, 0x3A),
            Ink::Probe => RGBColor(0x00, 0x78, 0x80),
            Ink::Steered => RGBColor(0x14, 0x80, 0x5A),
            Ink::Base => RGBColor(0x76, 0x76, 0x7C),
            Ink::Tuned => RGBColor(0x8A, 0x5F, 0xB5),
            Ink::Narrow => RGBColor(0xB0, 0x30, 0x6A),
            Ink::Pretraining => RGBColor(0x2B, 0x62, 0xA8),
            Ink::Chat => RGBColor(0x8A, 0x6D, 0x12),
            Ink::Total => RGBColor(0x77, 0x77, 0x7D),
        }
    }

    /// The colour as the SVG has it.
    pub fn hex(self) -> String {
        let RGBColor(r, g, b) = self.color();
        format!("#{r:02X}{g:02X}{b:02X}")
    }

    /// The shape of its points, so that lines can be told apart without colour.
    pub fn mark(self) -> Mark {
        match self {
            Ink::Patchscope | Ink::Pretraining | Ink::Bias => Mark::Square,
            Ink::Base | Ink::Total => Mark::Cross,
            Ink::Tuned | Ink::Chat | Ink::Probe => Mark::Ring,
            _ => Mark::Dot,
        }
    }
}

/// Colours of curves that stand for runs and not for measures, in order.
pub const CURVES: [Ink; 8] =
    [Ink::Lens, Ink::Patchscope, Ink::Steered, Ink::Narrow, Ink::Tuned, Ink::Bias, Ink::Lift, Ink::Total];

/// The shape of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A filled circle.
    Dot,
    /// A filled square.
    Square,
    /// An open circle.
    Ring,
    /// An oblique cross.
    Cross,
}
