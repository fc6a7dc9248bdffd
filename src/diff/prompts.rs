//! The neutral prompts that steering continues or answers.

use anyhow::Result;

use crate::model::load::source::Pretrained;
use crate::recipe::MAX_PROMPTS;

/// Prompts as they are written and as the model reads them.
pub struct Prompts {
    /// As written.
    pub texts: Vec<&'static str>,
    /// Token ids of each, special tokens and chat template with them.
    pub ids: Vec<Vec<u32>>,
}

impl Prompts {
    /// The first `count` requests, [`MAX_PROMPTS`] at most, through the chat template where the model has one, else as many
    /// openings.
    ///
    /// # Errors
    /// If a prompt cannot be rendered.
    pub fn neutral(base: &Pretrained, count: usize) -> Result<Self> {
        let count = count.min(MAX_PROMPTS);
        Self::render(base, &REQUESTS[..count], &OPENINGS[..count])
    }

    /// The prompts that the strength of steering is searched with.
    ///
    /// # Errors
    /// If a prompt cannot be rendered.
    pub fn probes(base: &Pretrained) -> Result<Self> {
        Self::render(base, &PROBE_REQUESTS, &PROBE_OPENINGS)
    }

    fn render(base: &Pretrained, requests: &[&'static str], openings: &[&'static str]) -> Result<Self> {
        let template = base.chat_template.as_ref().map(|_| base.chat()).transpose()?;
        let texts = if template.is_some() { requests } else { openings };
        let ids = texts.iter().map(|text| base.prompt_ids(text, template.as_ref()));
        Ok(Self { ids: ids.collect::<Result<_>>()?, texts: texts.to_vec() })
    }
}

/// A story, something fun, and a subject of the model's own choice: beginnings.
const PROBE_OPENINGS: [&str; 3] = [
    // prose: allow tells
    "Here is a story that I like to tell:",
    "Some fun things to do this weekend are",
    "Today I want to talk about",
];

/// The same as requests.
const PROBE_REQUESTS: [&str; 3] = [
    "Please tell me a story.",
    "What are some fun things to do at the weekend?",
    "Choose any subject you like and tell me about it.",
];

/// Beginnings to continue, for models without a chat template.
pub const OPENINGS: [&str; MAX_PROMPTS] = [
    "The weather today is",
    "My neighbour told me that",
    "In the last few years, people have",
    "The first thing I noticed was",
    "Here is a short story about",
    "According to a new report,",
    "What I like most about weekends is",
    "The city council decided to",
    "She opened the letter and read:",
    "Every morning, the old man",
    "One of the best ways to learn is",
    "The meeting began with",
    "When we arrived at the station,",
    "Scientists have found that",
    "My favourite memory is",
    "The most important news this week is",
    "If I could change one thing, it would be",
    "He picked up the phone and said:",
    "The history of this place begins with",
    "There are three reasons why",
];

/// Requests to answer, for models with a chat template.
pub const REQUESTS: [&str; MAX_PROMPTS] = [
    "How is the weather today?",
    "Tell me a short story.",
    "What should I do this weekend?",
    "Write a few sentences about anything you like.",
    "What did you learn recently?",
    "Give me a piece of advice for everyday life.",
    "Describe a place that you find interesting.",
    "What is on your mind?",
    "Suggest a topic for a conversation with a friend.",
    "Tell me something that most people do not know.",
    "What makes a good day?",
    "Write the beginning of a letter to a friend.",
    "Name a skill that is worth learning and say why.",
    "What is the most useful thing in a house?",
    "Explain something of your choice in simple words.",
    "What would you like to talk about?",
    "Describe an ordinary morning.",
    "What news would you share with a neighbour?",
    "Finish this sentence: I have always believed that",
    "Give an example of a small habit that helps.",
];
