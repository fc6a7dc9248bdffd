//! Whether the arrays of a `readability.json` fit its positions, so that nothing after it has to guess.

use crate::diff::record::{Readability, SCHEMA};

/// One line a fault; empty when every array has the length that its positions ask for.
pub fn faults(r: &Readability) -> Vec<String> {
    let mut shape = Shape { expected: r.positions.len(), faults: Vec::new() };
    if r.schema != SCHEMA {
        shape.faults.push(format!("schema: expected {SCHEMA}, found {}", r.schema));
    }
    shape.optional("position_tokens", r.position_tokens.len());
    shape.length("delta_norm", r.delta_norm.len());
    shape.length("delta_norm_interval", r.delta_norm_interval.len());
    shape.length("expected_norm", r.expected_norm.len());
    shape.length("expected_norm_base", r.expected_norm_base.len());
    shape.length("position_cosine", r.position_cosine.len());
    if let Some(lens) = &r.logit_lens {
        shape.length("logit_lens.top_tokens", lens.top_tokens.len());
        shape.optional("logit_lens.bottom_tokens", lens.bottom_tokens.len());
        let t = &lens.token_relevance;
        shape.together(&[
            ("logit_lens.token_relevance.difference", t.difference.len()),
            ("logit_lens.token_relevance.base", t.base.len()),
            ("logit_lens.token_relevance.tuned", t.tuned.len()),
            ("logit_lens.token_relevance_null", lens.token_relevance_null.len()),
            ("logit_lens.token_relevance_null_interval", lens.token_relevance_null_interval.len()),
            ("logit_lens.token_relevance_p", lens.token_relevance_p.len()),
        ]);
        let interval = lens.token_relevance_difference_interval.len();
        shape.optional("logit_lens.token_relevance_difference_interval", interval);
    }
    if let Some(scope) = &r.patchscope {
        shape.expected = scope.positions(&r.positions).len();
        shape.length("patchscope.best_scale", scope.best_scale.len());
        shape.length("patchscope.top_tokens", scope.top_tokens.len());
        let t = &scope.token_relevance;
        shape.together(&[
            ("patchscope.token_relevance.difference", t.difference.len()),
            ("patchscope.token_relevance.base", t.base.len()),
            ("patchscope.token_relevance.tuned", t.tuned.len()),
            ("patchscope.token_relevance_null", scope.token_relevance_null.len()),
            ("patchscope.token_relevance_null_interval", scope.token_relevance_null_interval.len()),
            ("patchscope.token_relevance_p", scope.token_relevance_p.len()),
        ]);
    }
    if let Some(steering) = &r.steering {
        shape.expected = steering.positions.len();
        let s = &steering.similarity;
        shape.length("steering.strength", steering.strength.len());
        shape.length("steering.strength_in_differences", steering.strength_in_differences.len());
        shape.optional("steering.similarity.steered_reference", s.steered_reference.len());
        shape.length("steering.similarity.unsteered_reference", s.unsteered_reference.len());
        shape.together(&[
            ("steering.similarity.unsteered_narrow", s.unsteered_narrow.len()),
            ("steering.similarity.narrow_narrow", s.narrow_narrow.len()),
        ]);
        shape.together(&[
            ("steering.similarity.steered_narrow", s.steered_narrow.len()),
            ("steering.similarity_gain_interval", steering.similarity_gain_interval.len()),
        ]);
        shape.together(&[
            ("steering.similarity.steered_base_narrow", s.steered_base_narrow.len()),
            ("steering.similarity_base_gain_interval", steering.similarity_base_gain_interval.len()),
        ]);
        // Without words that stand out there is similarity, and no share of words.
        shape.optional("steering.relevant_words_steered", steering.relevant_words_steered.len());
        shape.optional("steering.relevant_words_unsteered", steering.relevant_words_unsteered.len());
        shape.optional("steering.relevant_words_steered_base", steering.relevant_words_steered_base.len());
    }
    shape.faults
}

struct Shape {
    expected: usize,
    faults: Vec<String>,
}

impl Shape {
    fn length(&mut self, key: &str, found: usize) {
        let expected = self.expected;
        if found != expected {
            self.faults.push(format!("{key}: expected {expected} entries, one a position, found {found}"));
        }
    }

    /// An array that may also be left empty.
    fn optional(&mut self, key: &str, found: usize) {
        if found != 0 {
            self.length(key, found);
        }
    }

    /// What needs narrow text: all of it there, or none.
    fn together(&mut self, lengths: &[(&str, usize)]) {
        if lengths.iter().any(|(_, found)| *found != 0) {
            lengths.iter().for_each(|(key, found)| self.length(key, *found));
        }
    }
}
