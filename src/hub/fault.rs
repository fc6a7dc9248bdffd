//! Why a hub does not give what is asked for.

use std::fmt;

use crate::error::input_error;

/// Why the hub does not give what is asked for.
#[derive(Debug)]
pub enum HubFault {
    /// It refuses access (401, 403).
    Refused,
    /// It has no such thing (404).
    Absent,
    /// The file ends before what is asked for (416).
    BeyondEnd,
    /// Anything else, in words.
    Other(String),
}

impl HubFault {
    /// An input error about `what` of `id`.
    pub fn about(&self, id: &dyn fmt::Display, what: &str) -> anyhow::Error {
        input_error(match self {
            Self::Refused => format!(
                "{id}: access to {what} was refused; is the name right? A gated repository needs HF_TOKEN and \
                 accepted terms"
            ),
            Self::Absent => format!("{id}: the hub has no {what}"),
            Self::BeyondEnd => format!("{id}: {what} is shorter than the hub said"),
            Self::Other(why) => format!("{id}: cannot fetch {what}: {why}"),
        })
    }
}
