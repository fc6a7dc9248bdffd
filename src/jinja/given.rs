//! What a call was given, bound to the names of its parameters.

use std::rc::Rc;

use anyhow::{Result, bail};

use super::value::JinjaValue;

/// The arguments of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub positional: Vec<JinjaValue>,
    pub named: Vec<(Rc<str>, JinjaValue)>,
}

impl Given {
    /// The arguments by parameter; the first `required` must be there.
    ///
    /// # Errors
    /// As Python: too many, unknown, given twice, or missing.
    pub fn bind<const N: usize>(
        self,
        of: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<JinjaValue>; N]> {
        if self.positional.len() > N {
            bail!("{of}() takes at most {N} arguments, found {}", self.positional.len());
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|n| **n == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => bail!("{of}() got multiple values for argument '{name}'"),
                None => bail!("{of}() got an unexpected keyword argument '{name}'"),
            }
        }
        match bound.iter().take(required).position(Option::is_none) {
            Some(missing) => bail!("{of}() missing argument '{}'", names[missing]),
            None => Ok(bound),
        }
    }
}
