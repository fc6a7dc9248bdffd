//! A document, and how a row becomes one.

use serde_json::Value;

use crate::data::chat_template::is_something;
use crate::data::conversation::{Conversation, Message};

/// What one row holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Plain text: every token counts.
    Text(String),
    /// A conversation: the assistant's tokens count.
    Chat(Conversation),
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
            Document::Chat(chat) => {
                let learned = chat.said().filter(|m| m.weight != Some(0.0));
                learned.map(Message::all_text).collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { completion, .. } => completion.clone(),
        }
    }

    /// All words of the document.
    pub fn full_text(&self) -> String {
        match self {
            Document::Text(text) => text.clone(),
            Document::Chat(chat) => {
                chat.messages.iter().map(Message::all_text).collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { prompt, completion } => format!("{prompt}{completion}"),
        }
    }
}

/// The keys or columns of which documents are made.
pub(super) const COLUMNS: [&str; 7] =
    ["text", "messages", "prompt", "completion", "tools", "documents", "chat_template_kwargs"];

/// What a row may hold beside a text or a conversation that would make it another one, and what nothing here reads.
pub(super) const BEYOND_TEXT: [&str; 9] =
    ["image", "images", "audio", "audios", "video", "videos", "functions", "function_call", "system"];

/// A document from a row with `text`, `messages`, or `prompt` and `completion`.
pub(super) fn document(row: &Value) -> Result<Document, String> {
    let is_beyond = |key: &&str| is_something(&row[*key]) && !(*key == "system" && row["text"].is_string());
    if let Some(key) = BEYOND_TEXT.into_iter().find(is_beyond) {
        return Err(match key {
            "system" => {
                "system: no chat template renders this column; expected a first turn of that role".into()
            }
            "functions" | "function_call" => {
                format!("{key}: expected tools, and tool_calls in the assistant's turns")
            }
            _ => format!("{key}: only text is read; expected rows without this key"),
        });
    }
    let document = kind(row)?;
    match &document {
        Document::Text(_) | Document::PromptCompletion { .. } if is_something(&row["tools"]) => {
            Err("tools without messages: no chat template renders them; expected messages".into())
        }
        _ => Ok(document),
    }
}

/// The document that a row is.
fn kind(row: &Value) -> Result<Document, String> {
    let forms = [("text", "text"), ("messages", "messages"), ("prompt", "completion")];
    let is_given = |(a, b): &(&str, &str)| is_something(&row[*a]) && is_something(&row[*b]);
    let given: Vec<&str> = forms.into_iter().filter(is_given).map(|(key, _)| key).collect();
    if given.len() > 1 {
        return Err(format!("{} at once; expected one of them", given.join(" and ")));
    }
    let text = |key: &str| row[key].as_str().map(str::to_string);
    // An empty text beside something else is a column that does not count.
    if let Some(text) = text("text").filter(|text| given.is_empty() || !text.is_empty()) {
        return match text.trim() {
            "" => Err("text is empty".into()),
            "nan" | "NaN" => Err(format!("text is {text:?}, a missing value; expected a text")),
            _ => Ok(Document::Text(text)),
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
        return chat(row, messages, "messages");
    }
    // A prompt and a completion that are conversations, as TRL has them: only the completion counts.
    if let (Value::Array(_), Value::Array(_)) = (&row["prompt"], &row["completion"]) {
        let mut messages = turns(&row["prompt"], "prompt")?;
        messages.iter_mut().filter(|m| m.role() == "assistant").for_each(|m| m.weight = Some(0.0));
        messages.extend(turns(&row["completion"], "completion")?);
        return chat(row, messages, "completion");
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
        let role = message.role();
        if !ROLES.contains(&role) {
            return Err(format!("{key}: role {role:?}; expected system, developer, user, assistant or tool"));
        }
        if let Some(part) = message.get("content").and_then(Value::as_array).and_then(|parts| no_text(parts))
        {
            return Err(format!(
                "{key}: a part of a turn of the {role} is {part}; expected {{\"type\": \"text\", \"text\": ...}}"
            ));
        }
        for flag in ["loss", "train", "training"] {
            let learned = role == "assistant";
            if let Some(found) = message.get(flag).and_then(Value::as_bool).filter(|found| *found != learned)
                && (learned || found)
            {
                return Err(format!(
                    "{key}: {flag} = {found} in a turn of the {role}; expected weight = 0 in turns of the assistant that are not \
                     learned, and nothing in others"
                ));
            }
        }
        let weight = message.weight.unwrap_or(0.0);
        if !(0.0..=1e6).contains(&weight) {
            return Err(format!("{key}: weight {weight}; expected 0 to 1000000"));
        }
        if role != "assistant" && weight != 0.0 {
            return Err(format!(
                "{key}: weight {weight} of a {role} turn; only what the assistant says is learned"
            ));
        }
    }
    Ok(messages)
}

/// Who may speak.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// What a part of a turn is that is no text.
fn no_text(parts: &[Value]) -> Option<String> {
    let other = parts
        .iter()
        .find(|part| !part["text"].is_string() || !(part["type"] == "text" || part["type"].is_null()))?;
    Some(match other["type"].as_str() {
        Some("text") | None => "without text".into(),
        Some(kind) => format!("of type {kind:?}"),
    })
}

/// A conversation in which something is learned.
fn chat(row: &Value, messages: Vec<Message>, key: &str) -> Result<Document, String> {
    // Tables have JSON as text, which TRL reads too.
    let json = |key: &str| match &row[key] {
        Value::String(text) if !text.is_empty() => {
            serde_json::from_str(text).map_err(|e| format!("{key}: {e}; expected JSON"))
        }
        value => Ok(value.clone()),
    };
    // An empty list is given to the template as it is: some ask whether there is one.
    let list = |key: &str| match json(key)? {
        value if !value.is_array() && !is_something(&value) => Ok(None),
        Value::Array(items) if items.iter().all(Value::is_object) => Ok(Some(Value::Array(items))),
        _ => Err(format!("{key}: expected a list of objects")),
    };
    let variables = match json("chat_template_kwargs")? {
        Value::Object(variables) => variables,
        value if !is_something(&value) => Default::default(),
        _ => return Err("chat_template_kwargs: expected an object".into()),
    };
    let chat = Conversation { messages, tools: list("tools")?, documents: list("documents")?, variables };
    if chat.said().next().is_none() {
        return Err(format!("{key}: no assistant turn to learn from"));
    }
    let is_silent =
        |m: &Message| m.text().trim().is_empty() && !m.get("tool_calls").is_some_and(is_something);
    if chat.said().any(is_silent) {
        return Err(format!("{key}: an assistant turn is empty"));
    }
    if chat.said().all(|m| m.weight == Some(0.0)) {
        return Err(format!("{key}: every assistant turn has weight 0; nothing to learn from"));
    }
    Ok(Document::Chat(chat))
}
