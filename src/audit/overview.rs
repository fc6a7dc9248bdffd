//! The first thing that an investigator reads: what the analysis decoded, in short. Neither the organism's name nor
//! its data are in it, and nothing that was found with their help (relevance, lexicon, similarity).

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tools::shown;
use crate::diff::store::StoredAnalysis;

/// How much of the analysis the overview shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// Tokens a list.
    pub tokens: usize,
    /// Characters of a text.
    pub characters: usize,
}

impl Overview {
    /// The analysis in short; for a black-box investigator the unsteered texts alone.
    pub fn of(self, stored: &StoredAnalysis, black_box: bool) -> String {
        if black_box { self.texts_alone(stored) } else { self.whole(stored) }
    }

    fn whole(self, stored: &StoredAnalysis) -> String {
        let record = &stored.record;
        let mut text = format!(
            "Both models read the first tokens of {} unrelated texts. The difference of a position is the mean of the \
             finetuned model's residual stream minus the base model's there, after block {} of {}.\n",
            record.samples,
            record.layer + 1,
            record.n_layers
        );
        for (at, position) in record.positions.iter().enumerate() {
            let relative = record.delta_norm[at] / record.expected_norm[at];
            let _ = writeln!(text, "\nPosition {position}: length {relative:.3} of a typical activation");
            if let Some(lens) = &record.logit_lens {
                let _ = writeln!(text, "  logit lens: {}", shown(&lens.top_tokens[at], self.tokens));
            }
            if let Some((scale, tokens)) = stored.patchscope_at(*position) {
                let _ = writeln!(text, "  patchscope at scale {scale}: {}", shown(tokens, self.tokens));
            }
        }
        let mut seen = Vec::new();
        for line in &stored.steering {
            if !seen.contains(&line.position) {
                let _ = writeln!(text, "\nTexts with the difference of position {} added:", line.position);
                seen.push(line.position);
            }
            let (Some(steered), Some(unsteered)) = (line.steered.first(), line.unsteered.first()) else {
                continue;
            };
            let _ = writeln!(
                text,
                "  prompt {}\n    with: {}\n    without: {}",
                self.cut(&line.prompt),
                self.cut(steered),
                self.cut(unsteered)
            );
        }
        text
    }

    fn texts_alone(self, stored: &StoredAnalysis) -> String {
        let Some(first) = stored.steering.first().map(|l| l.position) else {
            return "There are no stored texts.".into();
        };
        let mut text = "Texts that the finetuned model wrote:\n".to_string();
        for line in stored.steering.iter().filter(|l| l.position == first) {
            for unsteered in &line.unsteered {
                let _ =
                    writeln!(text, "  prompt {}\n    text: {}", self.cut(&line.prompt), self.cut(unsteered));
            }
        }
        text
    }

    /// The beginning of a text, in quotation marks.
    fn cut(self, text: &str) -> String {
        let mut cut: String = text.chars().take(self.characters).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        Value::String(cut).to_string()
    }
}
