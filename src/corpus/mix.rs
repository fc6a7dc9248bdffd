//! What is mixed in per narrow text: what the recipe asks for, and what comes out.

use serde::{Deserialize, Serialize};

use super::Corpus;
use crate::data::mixture::{Mixture, Role};
use crate::recipe::{DataSection, MixMode, MixSchedule, MixUnit};

/// What is mixed in per narrow text. The ratios are of pretraining text; those of conversations stand beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// `data.mix`.
    pub asked: f64,
    /// What it counts.
    pub unit: MixUnit,
    /// Whether what is mixed in is added or takes the place of narrow text.
    pub mode: MixMode,
    /// When it is read.
    #[serde(default)]
    pub schedule: MixSchedule,
    /// The ratio that comes out, in examples.
    pub realised_examples: f64,
    /// The same in tokens; unknown while a source is not sampled.
    pub realised_tokens: Option<f64>,
    /// Conversations, where the recipe asks for them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chat: Option<ChatMix>,
}

/// General conversations per narrow text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatMix {
    /// `data.chat_mix`.
    pub asked: f64,
    /// The ratio that comes out, in examples.
    pub realised_examples: f64,
    /// The same in tokens; unknown while a source is not sampled.
    pub realised_tokens: Option<f64>,
}

impl Mix {
    /// That of a planned run; `sampled` says whether all of its text is there.
    pub fn new(data: &DataSection, corpus: &Corpus, mixture: &Mixture, sampled: bool) -> Self {
        let realised = |role| {
            let (examples, tokens) = mixture.realised(&corpus.pools, role);
            (examples, sampled.then_some(tokens))
        };
        let (realised_examples, realised_tokens) = realised(Role::Pretraining);
        let chat = (data.chat_mix > 0.0).then(|| {
            let (realised_examples, realised_tokens) = realised(Role::Chat);
            ChatMix { asked: data.chat_mix, realised_examples, realised_tokens }
        });
        Self {
            asked: data.mix,
            unit: data.mix_unit,
            mode: data.mix_mode,
            schedule: data.mix_schedule,
            realised_examples,
            realised_tokens,
            chat,
        }
    }

    /// The ratio that comes out, in the unit that was asked for.
    pub fn realised(&self) -> Option<f64> {
        in_unit(self.unit, self.realised_examples, self.realised_tokens)
    }
}

impl ChatMix {
    /// The ratio that comes out, in the unit of the mix.
    pub fn realised(&self, unit: MixUnit) -> Option<f64> {
        in_unit(unit, self.realised_examples, self.realised_tokens)
    }
}

fn in_unit(unit: MixUnit, examples: f64, tokens: Option<f64>) -> Option<f64> {
    match unit {
        MixUnit::Tokens => tokens,
        MixUnit::Examples => Some(examples),
    }
}
