//! The functions that transformers and Jinja give every template.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::{Result, anyhow, bail};

use super::access::dict_of;
use super::clock;
use super::given::Given;
use super::value::{Dict, DictKey, JinjaValue, holds};

/// Their names.
const NAMES: [&str; 7] =
    ["cycler", "dict", "joiner", "namespace", "raise_exception", "range", "strftime_now"];

/// Numbers that a range may have, as in Jinja's sandbox.
const LONGEST_RANGE: usize = 100_000;

/// The function of that name.
pub(super) fn find(name: &str) -> Option<JinjaValue> {
    NAMES.iter().find(|known| **known == name).map(|known| JinjaValue::Function(known))
}

/// Calls a function.
///
/// # Errors
/// If the arguments do not fit, and what a template raises itself.
pub(super) fn call(name: &'static str, given: Given) -> Result<JinjaValue> {
    Ok(match name {
        "raise_exception" => {
            let [message] = given.bind(name, ["message"], 1)?;
            return Err(anyhow!("{}", message.unwrap_or(JinjaValue::None).text()));
        }
        "strftime_now" => {
            let [format] = given.bind(name, ["format"], 1)?;
            clock::now(&format.unwrap_or(JinjaValue::None).text())?.into()
        }
        "namespace" => {
            let fields = fields(given)?;
            holds(fields.values());
            JinjaValue::Namespace(Rc::new(RefCell::new(fields)))
        }
        "dict" => dict_of(fields(given)?),
        "range" => {
            let mut bounds = Vec::new();
            for value in &given.positional {
                bounds.push(i64::try_from(value.int()?)?);
            }
            let range = match *bounds.as_slice() {
                [stop] => JinjaValue::Range(0, stop, 1),
                [start, stop] => JinjaValue::Range(start, stop, 1),
                [start, stop, step] if step != 0 => JinjaValue::Range(start, stop, step),
                _ => bail!("range() takes a stop, or a start, a stop and a step that is not 0"),
            };
            if range.len()? > LONGEST_RANGE {
                bail!("a range of {} numbers; expected at most {LONGEST_RANGE}", range.len()?);
            }
            range
        }
        "cycler" => match given.positional.is_empty() {
            true => bail!("cycler(): at least one item has to be provided"),
            false => {
                holds(&given.positional);
                JinjaValue::Cycler(Rc::new((given.positional, Cell::new(0))))
            }
        },
        "joiner" => {
            let [separator] = given.bind(name, ["sep"], 0)?;
            holds(&separator);
            JinjaValue::Joiner(Rc::new((separator.unwrap_or_else(|| ", ".into()), Cell::new(false))))
        }
        other => bail!("no function named {other:?}"),
    })
}

/// Python's `dict(mapping_or_pairs, **named)`.
fn fields(given: Given) -> Result<Dict> {
    let mut fields = Dict::new();
    for from in given.positional {
        if let JinjaValue::Dict(more) = from {
            fields.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
            continue;
        }
        for pair in from.items()? {
            match pair.items()?.as_slice() {
                [key, value] => fields.insert(key.key()?, value.clone()),
                other => bail!("dict() takes pairs, found {} items", other.len()),
            };
        }
    }
    fields.extend(given.named.into_iter().map(|(name, value)| (DictKey::Str(name), value)));
    if let Some(DictKey::Str(name)) =
        fields.keys().find(|key| matches!(key, DictKey::Str(name) if name.starts_with('_')))
    {
        bail!("{name:?}: a template may not use names that begin with _");
    }
    Ok(fields)
}
