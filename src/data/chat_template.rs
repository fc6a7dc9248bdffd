//! The model's own chat template (Jinja, as Hugging Face writes it).

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::conversation::{Conversation, Message};
use crate::error::input_error;
use crate::jinja::{Rendering, Template};
use crate::text_file::read_text;

/// The source of the template that `data.chat_template` names: one of [`crate::recipe::CHAT_TEMPLATES`], or a file.
///
/// # Errors
/// An [`crate::error::InputError`] if the file cannot be read.
pub fn named(name: &str) -> Result<String> {
    match name {
        "gemma" => Ok(include_str!("templates/gemma.jinja").to_string()),
        file => {
            read_text(Path::new(file)).map_err(|e| input_error(format!("data.chat_template: {file}: {e}")))
        }
    }
}

/// Keys under which data sets keep what the assistant thought; templates read the first two.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Keys of a turn without which it is another turn.
const OF_TURNS: [&str; 12] = [
    "tool_calls",
    "function_call",
    "reasoning_content",
    "thinking",
    "reasoning",
    "name",
    "images",
    "image",
    "audio",
    "audios",
    "video",
    "videos",
];

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    /// The model's template for conversations with tools, where it has one of its own (`tool_use`).
    with_tools: Option<Template>,
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Compiles the Jinja source; `special_tokens` are the texts that the template may put in by their names (`bos_token`),
    /// as far as the tokenizer has them.
    ///
    /// # Errors
    /// If the source is not a Jinja template.
    pub fn compile<'t>(
        source: &str,
        special_tokens: impl IntoIterator<Item = (&'t str, Option<&'t str>)>,
    ) -> Result<Self> {
        let named =
            special_tokens.into_iter().filter_map(|(name, text)| Some((name.to_string(), text?.into())));
        Ok(Self { template: Template::parse(source)?, with_tools: None, special_tokens: named.collect() })
    }

    /// The same with a template of its own for conversations with tools.
    ///
    /// # Errors
    /// If the source is not a Jinja template.
    pub fn with_tools(self, source: &str) -> Result<Self> {
        Ok(Self { with_tools: Some(Template::parse(source)?), ..self })
    }

    /// The template that renders a conversation, chosen as transformers does (`get_chat_template`).
    fn of(&self, conversation: &Conversation) -> &Template {
        match &self.with_tools {
            Some(template) if conversation.tools.is_some() => template,
            _ => &self.template,
        }
    }

    /// The conversation as the model reads it.
    ///
    /// # Errors
    /// If the template refuses the conversation (its own message is kept).
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        Ok(self.render_marked(conversation, add_generation_prompt)?.text)
    }

    /// The same with the places of `{% generation %}` blocks.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_marked(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<Rendering> {
        let mut variables = self.special_tokens.clone();
        variables.extend(conversation.variables.clone());
        variables.insert("messages".into(), conversation.messages.iter().map(as_given).collect());
        // Both are always there, and None where there are none.
        variables.insert("tools".into(), conversation.tools.clone().unwrap_or_default());
        variables.insert("documents".into(), conversation.documents.clone().unwrap_or_default());
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        self.of(conversation).render(&variables)
    }

    /// Whether the template marks what the assistant says in a conversation.
    pub fn has_marks(&self, conversation: &Conversation) -> bool {
        let template = self.of(conversation);
        template.mentions("generation") && template.mentions("endgeneration")
    }

    /// One user turn, ready for the assistant's answer, which a model that can think gives without.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn user_turn(&self, text: &str) -> Result<String> {
        let mut turn = Conversation::of(vec![Message::new("user", text)]);
        turn.variables.insert("enable_thinking".into(), false.into());
        self.render(&turn, true)
    }

    /// What a conversation holds that no code of the template reads, so that its rendering would leave it out; in words.
    pub fn leaves_out(&self, conversation: &Conversation) -> Option<String> {
        let reads = |key: &str| self.of(conversation).mentions(key);
        let beside = [("tools", &conversation.tools), ("documents", &conversation.documents)];
        if let Some((key, _)) =
            beside.into_iter().find(|(key, value)| value.as_ref().is_some_and(is_something) && !reads(key))
        {
            return Some(key.to_string());
        }
        if let Some(key) = conversation.variables.keys().find(|key| !reads(key)) {
            return Some(format!("chat_template_kwargs.{key}"));
        }
        for (i, message) in conversation.messages.iter().enumerate() {
            for key in OF_TURNS.into_iter().filter(|key| message.get(key).is_some_and(is_something)) {
                let is_read = match key {
                    // A tool's turn is known by its call.
                    "name" if matches!(message.role(), "tool" | "function") => true,
                    key if THOUGHTS.contains(&key) => {
                        reads(key) || THOUGHTS[..2].iter().any(|key| reads(key))
                    }
                    key => reads(key),
                };
                if !is_read {
                    return Some(format!("{key} of turn {}", i + 1));
                }
            }
            if message.get("content").is_some_and(Value::is_array) && !reads("text") {
                return Some(format!("a list as content of turn {}", i + 1));
            }
        }
        None
    }
}

/// Whether a value holds anything.
pub(in crate::data) fn is_something(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
        && *value != json!("")
        && *value != json!([])
        && *value != json!({})
}

/// A turn as transformers gives it to a template: thoughts are there under both names that templates read.
fn as_given(message: &Message) -> Value {
    let mut fields = message.fields().clone();
    if let Some(thought) = THOUGHTS.iter().find_map(|key| fields.get(*key)).cloned() {
        let mut with = Map::from_iter([("thinking".to_string(), thought.clone())]);
        with.extend(fields);
        with.insert("reasoning_content".into(), thought);
        fields = with;
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::CHAT_TEMPLATES;

    fn compiled(source: &str, bos: Option<&str>) -> ChatTemplate {
        ChatTemplate::compile(source, [("bos_token", bos)]).unwrap()
    }

    fn user(text: &str) -> Conversation {
        Conversation::of(vec![Message::new("user", text)])
    }

    #[test]
    fn every_template_that_comes_with_the_program_compiles() {
        for name in CHAT_TEMPLATES {
            let template = compiled(&named(name).unwrap(), Some("<bos>"));
            assert!(template.user_turn("qzjxv").unwrap().contains("qzjxv"), "{name}");
        }
        assert!(named("no-such-file").unwrap_err().to_string().contains("no-such-file"));
    }

    #[test]
    fn marks_of_an_assistant_s_text_leave_no_space() {
        for (open, close) in [
            ("{% generation %}", "{% endgeneration %}"),
            ("{%- generation %}", "{%- endgeneration -%}"),
            ("{%generation -%}", "{%  endgeneration  %}"),
        ] {
            let source = format!("A\n{open}\n{{{{ messages[0].content }}}}{close}\nB");
            let template = compiled(&source, None);
            assert!(template.has_marks(&user("hi")));
            let rendering = template.render_marked(&user("hi"), false).unwrap();
            let before = if open.contains("{%-") { "A" } else { "A\n" };
            assert_eq!(rendering.text, format!("{before}hiB"), "{open} {close}");
            let [marked] = &rendering.generated[..] else { panic!("{:?}", rendering.generated) };
            assert_eq!(*marked, before.len()..before.len() + 2);
        }
    }

    #[test]
    fn a_prompt_asks_for_no_thinking() {
        let source = "{{ messages[0].content }}{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}";
        let template = compiled(source, None);
        assert_eq!(template.user_turn("hi").unwrap(), "hi<think></think>");
        assert_eq!(template.render(&user("hi"), true).unwrap(), "hi");
    }

    #[test]
    fn gemma_s_turns() {
        let template = compiled(&named("gemma").unwrap(), Some("<bos>"));
        let chat = [
            Message::new("system", "Be brief."),
            Message::new("user", " hi "),
            Message::new("assistant", "a\nb"),
            Message::new("user", "so"),
        ];
        let expected = "<bos><start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\na\nb<end_of_turn>\n\
                        <start_of_turn>user\nso<end_of_turn>\n";
        let whole = Conversation::of(chat.to_vec());
        assert_eq!(template.render(&whole, false).unwrap(), expected);
        assert_eq!(template.render(&whole, true).unwrap(), format!("{expected}<start_of_turn>model\n"));
        let two = Conversation::of(vec![chat[1].clone(), chat[3].clone()]);
        let refused = template.render(&two, false).unwrap_err();
        assert!(format!("{refused:#}").contains("in turns"), "{refused:#}");
    }
}
