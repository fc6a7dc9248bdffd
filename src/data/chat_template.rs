//! The model's own chat template (Jinja, as Hugging Face writes it).

use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;
use fancy_regex::{Captures, Regex};
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::input_error;
use crate::text_file::read_text;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// How much the tokens of an assistant's turn count in the loss, as in OpenAI's finetuning files; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
}

impl Message {
    /// A turn of ordinary weight.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), weight: None }
    }
}

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

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Compiles the Jinja source; `bos` and `eos` are the texts that the template may put in.
    ///
    /// # Errors
    /// If the source is not a Jinja template.
    pub fn compile(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let mut env = Environment::new();
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
        });
        env.add_template_owned("chat", without_marks(source))?;
        let owned = |text: Option<&str>| text.unwrap_or_default().to_string();
        Ok(Self { env, bos_token: owned(bos), eos_token: owned(eos) })
    }

    /// The conversation as the model reads it.
    ///
    /// # Errors
    /// If the template refuses the conversation (its own message is kept).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, add_generation_prompt, context! {})
    }

    fn render_with(&self, messages: &[Message], add_generation_prompt: bool, more: Value) -> Result<String> {
        Ok(self.env.get_template("chat")?.render(context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            ..more
        })?)
    }

    /// One user turn, ready for the assistant's answer, which a model that can think gives without.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn user_turn(&self, text: &str) -> Result<String> {
        self.render_with(&[Message::new("user", text)], true, context! { enable_thinking => false })
    }
}

/// The source with the marks that transformers puts around an assistant's text as blocks that do nothing: they treat the
/// space around them as any block does. Our loss masks come from prefixes.
fn without_marks(source: &str) -> String {
    static MARK: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a regular expression")
    });
    let block = |mark: &Captures<str>| {
        let keyword = if mark.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {keyword} {}%}}", &mark[1], &mark[3])
    };
    MARK.replace_all(source, block).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::CHAT_TEMPLATES;

    #[test]
    fn every_template_that_comes_with_the_program_compiles() {
        for name in CHAT_TEMPLATES {
            let template = ChatTemplate::compile(&named(name).unwrap(), Some("<bos>"), None).unwrap();
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
            let template = ChatTemplate::compile(&source, None, None).unwrap();
            let text = template.render(&[Message::new("user", "hi")], false).unwrap();
            let before = if open.contains("{%-") { "A" } else { "A\n" };
            assert_eq!(text, format!("{before}hiB"), "{open} {close}");
        }
    }

    #[test]
    fn a_prompt_asks_for_no_thinking() {
        let source = "{{ messages[0].content }}{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}";
        let template = ChatTemplate::compile(source, None, None).unwrap();
        assert_eq!(template.user_turn("hi").unwrap(), "hi<think></think>");
        assert_eq!(template.render(&[Message::new("user", "hi")], true).unwrap(), "hi");
    }

    #[test]
    fn gemma_s_turns() {
        let template = ChatTemplate::compile(&named("gemma").unwrap(), Some("<bos>"), None).unwrap();
        let chat = [
            Message::new("system", "Be brief."),
            Message::new("user", " hi "),
            Message::new("assistant", "a\nb"),
            Message::new("user", "so"),
        ];
        let expected = "<bos><start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\na\nb<end_of_turn>\n\
                        <start_of_turn>user\nso<end_of_turn>\n";
        assert_eq!(template.render(&chat, false).unwrap(), expected);
        assert_eq!(template.render(&chat, true).unwrap(), format!("{expected}<start_of_turn>model\n"));
        let refused = template.render(&[chat[1].clone(), chat[3].clone()], false).unwrap_err();
        assert!(format!("{refused:#}").contains("in turns"), "{refused:#}");
    }
}
