//! A document, and how a row becomes one.

use serde_json::Value;

use crate::data::chat_template::Message;

/// What one row holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Plain text: every token counts.
    Text(String),
    /// A conversation: the assistant's tokens count.
    Chat(Vec<Message>),
    /// A prompt and what should follow it: the completion's tokens count.
    PromptCompletion {
        /// Given.
        prompt: String,
        /// Learned.
        completion: String,
    },
}

impl Document {
    /// The words of the document that are learned from, for lexicons and embeddings.
    pub fn learned_text(&self) -> String {
        match self {
            Document::Text(text) => text.clone(),
            Document::Chat(messages) => {
                let learned = messages.iter().filter(|m| m.role == "assistant" && m.weight != Some(0.0));
                let said = learned.map(|m| m.content.as_str());
                said.collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { completion, .. } => completion.clone(),
        }
    }

    /// All words of the document.
    pub fn full_text(&self) -> String {
        match self {
            Document::Text(text) => text.clone(),
            Document::Chat(messages) => {
                messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { prompt, completion } => format!("{prompt}{completion}"),
        }
    }
}

/// The keys or columns of which documents are made.
pub(super) const COLUMNS: [&str; 4] = ["text", "messages", "prompt", "completion"];

/// Bytes that a document may have: more is a file that is broken, or no text.
pub(super) const LARGEST_DOCUMENT: u64 = 64 << 20;

/// A document from a row with `text`, `messages`, or `prompt` and `completion`.
pub(super) fn document(row: &Value) -> Result<Document, String> {
    let text = |key: &str| row[key].as_str().map(str::to_string);
    if let Some(text) = text("text") {
        return match text.trim().is_empty() {
            true => Err("text is empty".into()),
            false => Ok(Document::Text(text)),
        };
    }
    if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
        return match completion.is_empty() {
            true => Err("completion is empty".into()),
            false => Ok(Document::PromptCompletion { prompt, completion }),
        };
    }
    if !row["messages"].is_null() {
        let messages = turns(&row["messages"], "messages")?;
        return chat(messages, "messages");
    }
    // A prompt and a completion that are conversations, as TRL has them: only the completion counts.
    if let (Value::Array(_), Value::Array(_)) = (&row["prompt"], &row["completion"]) {
        let mut messages = turns(&row["prompt"], "prompt")?;
        messages.iter_mut().filter(|m| m.role == "assistant").for_each(|m| m.weight = Some(0.0));
        messages.extend(turns(&row["completion"], "completion")?);
        return chat(messages, "completion");
    }
    // A key of documents with a value of the wrong kind; null is as if it were not there.
    for (key, expected) in [
        ("text", "a string"),
        ("prompt", "a string, or a list of turns as completion"),
        ("completion", "a string, or a list of turns as prompt"),
    ] {
        let found = match &row[key] {
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Object(_) => "an object",
            Value::Array(_) if key == "text" => "a list",
            Value::Null | Value::String(_) | Value::Array(_) => continue,
        };
        return Err(format!("{key} is {found}; expected {expected}"));
    }
    let keys: Vec<&String> = row.as_object().map(|o| o.keys().collect()).unwrap_or_default();
    Err(format!(
        "found keys {keys:?}; expected a string under text, a list under messages, or prompt and completion"
    ))
}

/// The turns under a key.
fn turns(value: &Value, key: &str) -> Result<Vec<Message>, String> {
    let messages: Vec<Message> = serde_json::from_value(value.clone())
        .map_err(|e| format!("{key}: {e}; expected a list of {{role, content}}"))?;
    for message in &messages {
        if !["system", "user", "assistant"].contains(&message.role.as_str()) {
            return Err(format!("{key}: role {:?}; expected system, user or assistant", message.role));
        }
        let weight = message.weight.unwrap_or(0.0);
        if !(0.0..=1e6).contains(&weight) {
            return Err(format!("{key}: weight {weight}; expected 0 to 1000000"));
        }
        if message.role != "assistant" && weight != 0.0 {
            return Err(format!(
                "{key}: weight {weight} of a {} turn; only what the assistant says is learned",
                message.role
            ));
        }
    }
    Ok(messages)
}

/// A conversation in which something is learned.
fn chat(messages: Vec<Message>, key: &str) -> Result<Document, String> {
    let mut said = messages.iter().filter(|m| m.role == "assistant").peekable();
    if said.peek().is_none() {
        return Err(format!("{key}: no assistant turn to learn from"));
    }
    if said.clone().any(|m| m.content.trim().is_empty()) {
        return Err(format!("{key}: an assistant turn is empty"));
    }
    if said.all(|m| m.weight == Some(0.0)) {
        return Err(format!("{key}: every assistant turn has weight 0; nothing to learn from"));
    }
    Ok(Document::Chat(messages))
}
