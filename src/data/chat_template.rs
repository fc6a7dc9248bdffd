//! The model's own chat template (Jinja, as Hugging Face writes it).

use anyhow::Result;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
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
        // `{% generation %}` marks assistant text for transformers' masks; ours come from prefixes.
        let source = source.replace("{% generation %}", "").replace("{% endgeneration %}", "");
        let source = source.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "");
        env.add_template_owned("chat", source)?;
        let owned = |text: Option<&str>| text.unwrap_or_default().to_string();
        Ok(Self { env, bos_token: owned(bos), eos_token: owned(eos) })
    }

    /// The conversation as the model reads it.
    ///
    /// # Errors
    /// If the template refuses the conversation (its own message is kept).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        Ok(self.env.get_template("chat")?.render(context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
        })?)
    }

    /// One user turn, ready for the assistant's answer.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn user_turn(&self, text: &str) -> Result<String> {
        self.render(&[Message { role: "user".into(), content: text.into() }], true)
    }
}
