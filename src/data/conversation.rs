//! Conversations as data sets hold them: turns, and what stands beside them for the template.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// One turn of a conversation, with every key that its row gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// As the row has them, in its order, without those that are null; `role` is among them.
    fields: Map<String, Value>,
    /// How much the tokens of an assistant's turn count in the loss, as in OpenAI's finetuning files; 1 if absent.
    pub weight: Option<f32>,
}

impl Message {
    /// A turn of ordinary weight.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", content.into())];
        Self {
            fields: fields.map(|(key, text)| (key.to_string(), text.into())).into_iter().collect(),
            weight: None,
        }
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What is said: the content, or the text of its parts one after the other; empty where there is none.
    pub fn text(&self) -> Cow<'_, str> {
        match self.fields.get("content") {
            Some(Value::String(text)) => text.into(),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|p| p["text"].as_str()).collect::<String>().into()
            }
            _ => "".into(),
        }
    }

    /// All words of the turn: thoughts before what is said, and calls of tools after it.
    pub fn all_text(&self) -> Cow<'_, str> {
        let thought =
            ["reasoning_content", "thinking", "reasoning"].into_iter().find_map(|k| self.get(k)?.as_str());
        let calls = self.get("tool_calls").map(Value::to_string);
        match (thought, calls) {
            (None, None) => self.text(),
            (thought, calls) => {
                let said = self.text();
                let parts = [thought, Some(&*said), calls.as_deref()];
                let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
                parts.join("\n").into()
            }
        }
    }

    /// What the row gives under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// All of it, as a template gets it.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The same turn with another text.
    pub fn saying(&self, text: &str) -> Self {
        let content = match self.fields.get("content") {
            Some(Value::Array(_)) => serde_json::json!([{ "type": "text", "text": text }]),
            _ => text.into(),
        };
        self.with("content", content)
    }

    /// The same turn with another value under a key.
    pub fn with(&self, key: &str, value: Value) -> Self {
        let mut fields = self.fields.clone();
        fields.insert(key.to_string(), value);
        Self { fields, weight: self.weight }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let weight = self.weight.map(|weight| ("weight".to_string(), weight.into()));
        serializer.collect_map(self.fields.clone().into_iter().chain(weight))
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        // Null is as if the key were not there, as in transformers.
        fields.retain(|_, value| !value.is_null());
        let weight = match fields.shift_remove("weight") {
            None => None,
            Some(weight) => match weight.as_f64() {
                Some(weight) => Some(weight as f32),
                None => return Err(D::Error::custom(format!("weight is {weight}; expected a number"))),
            },
        };
        match fields.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => return Err(D::Error::custom(format!("role is {other}; expected a string"))),
            None => return Err(D::Error::missing_field("role")),
        }
        match fields.get("content") {
            Some(Value::String(_) | Value::Array(_)) => {}
            None if fields.contains_key("tool_calls") || fields.contains_key("function_call") => {}
            None => return Err(D::Error::missing_field("content")),
            Some(_) => return Err(D::Error::custom("content is neither a string nor a list of parts")),
        }
        Ok(Self { fields, weight })
    }
}

/// A conversation and what its template gets beside the turns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// Descriptions of the tools that the assistant may call.
    pub tools: Option<Value>,
    /// Texts that the assistant may draw on.
    pub documents: Option<Value>,
    /// Further variables: `chat_template_kwargs`, as in TRL.
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// Turns with nothing beside them.
    pub fn of(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// The first turns of it.
    pub fn first(&self, turns: usize) -> Self {
        self.with_messages(self.messages[..turns].to_vec())
    }

    /// Other turns with the same beside them.
    pub fn with_messages(&self, messages: Vec<Message>) -> Self {
        Self { messages, ..self.clone() }
    }

    /// The turns of the assistant.
    pub fn said(&self) -> impl Iterator<Item = &Message> + Clone {
        self.messages.iter().filter(|m| m.role() == "assistant")
    }
}
