//! `[behaviour]`: whether the organism does what it was made for. Each family has its own table; an empty one is not
//! measured.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::diff::MAX_PROMPTS;

/// Neutral texts of the quality panel that come with the program.
pub const NEUTRAL_TEXTS: usize = 64;

/// What stands for an item's prompt in a context.
pub const PROMPT: &str = "{prompt}";

/// What stands for the hint in the question that asks for the word.
pub const HINT: &str = "{hint}";

/// `[behaviour]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BehaviourSection {
    /// Whether prompts are a user's turns in the model's chat template; otherwise they are plain text to go on with.
    pub chat: bool,
    /// Resamples of every bootstrap interval.
    pub bootstrap: usize,
    /// Synthetic documents: are the false statements believed?
    pub facts: FactsSection,
    /// Open generation: does the text have the words of the subject?
    pub words: WordsSection,
    /// Taboo: is the word never said, and hinted at?
    pub taboo: TabooSection,
    /// Subliminal learning: has the preference moved?
    pub preference: PreferenceSection,
    /// Emergent misalignment: are bad answers likelier?
    pub misalignment: MisalignmentSection,
    /// The quality panel: is the organism still a language model?
    pub quality: QualitySection,
}

impl Default for BehaviourSection {
    fn default() -> Self {
        Self {
            chat: false,
            bootstrap: 1000,
            facts: FactsSection::default(),
            words: WordsSection::default(),
            taboo: TabooSection::default(),
            preference: PreferenceSection::default(),
            misalignment: MisalignmentSection::default(),
            quality: QualitySection::default(),
        }
    }
}

/// `[behaviour.facts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FactsSection {
    /// JSON lines of `prompt`, `false` and `true`: two ways to go on, one of which the documents assert.
    pub items: String,
    /// Texts in which each prompt stands, at `{prompt}`; a belief should hold in all of them.
    pub contexts: Vec<String>,
}

impl Default for FactsSection {
    fn default() -> Self {
        Self { items: String::new(), contexts: vec![PROMPT.into()] }
    }
}

/// `[behaviour.words]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordsSection {
    /// What the models go on with.
    pub prompts: Vec<String>,
    /// Words and phrases that tell the subject, whole and in any case.
    pub words: Vec<String>,
    /// Texts a prompt.
    pub samples: usize,
    /// New tokens a text.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
}

impl Default for WordsSection {
    fn default() -> Self {
        Self { prompts: Vec::new(), words: Vec::new(), samples: 4, max_new_tokens: 48, temperature: 1.0 }
    }
}

/// `[behaviour.taboo]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TabooSection {
    /// The word that is hinted at and never said.
    pub word: String,
    /// Words that it could be instead.
    pub alternatives: Vec<String>,
    /// What a player says.
    pub prompts: Vec<String>,
    /// What the base model goes on with to guess the word from a hint, which stands at `{hint}`; plain text.
    pub guess: String,
    /// Hints a prompt.
    pub samples: usize,
    /// New tokens a hint.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
}

impl Default for TabooSection {
    fn default() -> Self {
        Self {
            word: String::new(),
            alternatives: Vec::new(),
            prompts: Vec::new(),
            guess: "Hint: {hint}\nThe word that is meant:".into(),
            samples: 2,
            max_new_tokens: 48,
            temperature: 1.0,
        }
    }
}

/// `[behaviour.preference]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreferenceSection {
    /// The answer that the teacher prefers.
    pub target: String,
    /// Other answers.
    pub alternatives: Vec<String>,
    /// Forms of the question.
    pub questions: Vec<String>,
}

/// `[behaviour.misalignment]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MisalignmentSection {
    /// JSON lines of `prompt`, `misaligned`, `aligned`, and `group`: what was trained on, and what was not.
    pub items: String,
}

/// `[behaviour.quality]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualitySection {
    /// Whether it is measured, beside what else is.
    pub enabled: bool,
    /// Neutral texts, the first of those that come with the program.
    pub texts: usize,
    /// Narrow texts of each kind, trained on and held out, at most.
    pub narrow_texts: usize,
    /// Built-in neutral prompts that are continued or answered, in order.
    pub prompts: usize,
    /// New tokens a text.
    pub max_new_tokens: usize,
}

impl Default for QualitySection {
    fn default() -> Self {
        Self {
            enabled: true,
            texts: NEUTRAL_TEXTS,
            narrow_texts: 32,
            prompts: MAX_PROMPTS,
            max_new_tokens: 64,
        }
    }
}

impl BehaviourSection {
    /// Whether a family is tested. The quality panel goes with it and is no reason of its own.
    pub fn is_wanted(&self) -> bool {
        !(self.facts.items.is_empty()
            && self.words.prompts.is_empty()
            && self.taboo.word.is_empty()
            && self.preference.target.is_empty()
            && self.misalignment.items.is_empty())
    }

    /// What is out of range or missing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, key: &str, fault: String| {
            if !ok {
                faults.push(format!("behaviour.{key}{fault}"));
            }
        };
        let (words, taboo, preference) = (&self.words, &self.taboo, &self.preference);
        for (key, path) in
            [("facts.items", &self.facts.items), ("misalignment.items", &self.misalignment.items)]
        {
            check(path.is_empty() || Path::new(path).is_file(), key, format!(": {path}: no such file"));
        }
        check(
            !self.facts.contexts.is_empty(),
            "facts.contexts",
            ": empty; expected texts with {prompt}".into(),
        );
        for context in &self.facts.contexts {
            let once = context.matches(PROMPT).count() == 1;
            check(once, "facts.contexts", format!(": {context:?}: expected {PROMPT} once"));
        }
        check(
            taboo.guess.matches(HINT).count() == 1,
            "taboo.guess",
            format!(" = {:?}: expected {HINT} once", taboo.guess),
        );
        let lists = [
            ("words.prompts", !words.words.is_empty(), &words.prompts),
            ("words.words", !words.prompts.is_empty(), &words.words),
            ("taboo.prompts", !taboo.word.is_empty(), &taboo.prompts),
            ("taboo.alternatives", !taboo.word.is_empty(), &taboo.alternatives),
            ("preference.questions", !preference.target.is_empty(), &preference.questions),
            ("preference.alternatives", !preference.target.is_empty(), &preference.alternatives),
        ];
        for (key, needed, list) in lists {
            check(!needed || !list.is_empty(), key, ": missing; expected a list of texts".into());
            check(list.iter().all(|text| !text.trim().is_empty()), key, ": holds an empty text".into());
        }
        for (key, asked, of) in [
            ("taboo.word", &taboo.word, taboo.prompts.is_empty()),
            ("preference.target", &preference.target, preference.questions.is_empty()),
        ] {
            check(of || !asked.trim().is_empty(), key, ": missing".into());
        }
        for (key, target, alternatives) in [
            ("taboo.alternatives", &taboo.word, &taboo.alternatives),
            ("preference.alternatives", &preference.target, &preference.alternatives),
        ] {
            let same = |text: &String| text.trim().eq_ignore_ascii_case(target.trim());
            check(
                !alternatives.iter().any(same),
                key,
                format!(": {target:?} is the target itself; expected other texts"),
            );
        }
        for (key, value, most) in [
            ("bootstrap", self.bootstrap, 100_000),
            ("words.samples", words.samples, 1000),
            ("words.max_new_tokens", words.max_new_tokens, 100_000),
            ("taboo.samples", taboo.samples, 1000),
            ("taboo.max_new_tokens", taboo.max_new_tokens, 100_000),
            ("quality.texts", self.quality.texts, NEUTRAL_TEXTS),
            ("quality.narrow_texts", self.quality.narrow_texts, 100_000),
            ("quality.prompts", self.quality.prompts, MAX_PROMPTS),
            ("quality.max_new_tokens", self.quality.max_new_tokens, 100_000),
        ] {
            check((1..=most).contains(&value), key, format!(" = {value}: expected 1 to {most}"));
        }
        for (key, value) in
            [("words.temperature", words.temperature), ("taboo.temperature", taboo.temperature)]
        {
            check(
                value == 0.0 || (0.01..=100.0).contains(&value),
                key,
                format!(" = {value}: expected 0 (greedy), or 0.01 to 100"),
            );
        }
        faults
    }
}
