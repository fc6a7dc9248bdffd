//! The neutral prompts that steering continues or answers.

use crate::recipe::MAX_PROMPTS;

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
