//! Chat templates' language: Jinja 3.1 with the settings, filters and functions that transformers gives it
//! (`transformers/utils/chat_template_utils.py`), and Python's values and their text.
//!
//! What differs from Jinja: no other templates beside the one, no automatic escape of HTML, and `urlize`, `xmlattr`,
//! `striptags`, `filesizeformat`, `wordwrap`, `random` and `lipsum` are refused by name where they are used.

mod access;
mod ast;
mod budget;
mod clock;
mod dumps;
mod filters;
mod formatting;
mod functions;
mod given;
mod lexer;
mod methods;
mod parser;
mod predicates;
mod render;
mod text;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Map, Value as Json};

pub use self::render::Rendering;
use crate::limits::{DEEPEST_TEMPLATE, LARGEST_TEMPLATE};

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    body: Vec<ast::Stmt>,
    words: BTreeSet<String>,
}

impl Template {
    /// Parses the source, with `trim_blocks` and `lstrip_blocks`.
    ///
    /// # Errors
    /// If it is not Jinja, or uses what is not supported, with the line.
    pub fn parse(source: &str) -> Result<Self> {
        if source.len() > LARGEST_TEMPLATE {
            bail!("a template of {} bytes; expected at most {LARGEST_TEMPLATE}", source.len());
        }
        budget::within(|| {
            let (body, words) = parser::parse(source)?;
            let depth = ast::depth(&body);
            if depth > DEEPEST_TEMPLATE {
                bail!(
                    "{depth} expressions and blocks within each other; expected at most {DEEPEST_TEMPLATE}"
                );
            }
            Ok(Self { body, words })
        })
    }

    /// Whether the code of the template holds a name or a string, as `messages[0]['tool_calls']` does.
    pub fn mentions(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Renders with these variables.
    ///
    /// # Errors
    /// What the template raises, and its faults, with the line.
    pub fn render(&self, variables: &Map<String, Json>) -> Result<Rendering> {
        budget::within(|| {
            let variables = variables.iter().map(|(name, value)| (Arc::from(name.as_str()), value.into()));
            render::Renderer::render(&self.body, variables)
        })
    }
}
