//! Attributes and items of values, as Jinja looks them up: `a.b` tries the attribute first, `a['b']` the item.

use std::rc::Rc;

use anyhow::{Result, bail};

use super::budget::{made, worked};
use super::value::{Dict, DictKey, JinjaValue, holds, undefined};

const OF_STR: [&str; 40] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
];
const MORE_OF_STR: [&str; 3] = ["title", "upper", "zfill"];
const OF_DICT: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const OF_LIST: [&str; 3] = ["count", "index", "copy"];
/// What changes a value, which transformers' sandbox refuses.
const CHANGING_LISTS: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const CHANGING_DICTS: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// The method of a value by that name, if it has one.
fn method(value: &JinjaValue, name: &str) -> Result<Option<JinjaValue>> {
    let is_known = match value {
        JinjaValue::Str(_) => OF_STR.contains(&name) || MORE_OF_STR.contains(&name),
        JinjaValue::Dict(_) => OF_DICT.contains(&name),
        JinjaValue::List(_) | JinjaValue::Tuple(_) => OF_LIST.contains(&name),
        JinjaValue::Int(_) | JinjaValue::Bool(_) => name == "bit_length",
        JinjaValue::Float(_) => name == "is_integer",
        JinjaValue::Cycler(_) => name == "next" || name == "reset",
        JinjaValue::Loop(_) => name == "cycle" || name == "changed",
        _ => false,
    };
    let changes = match value {
        JinjaValue::List(_) => CHANGING_LISTS.contains(&name),
        JinjaValue::Dict(_) => CHANGING_DICTS.contains(&name),
        _ => false,
    };
    if changes {
        bail!("{}.{name}: a template may not change a value", value.kind());
    }
    Ok(is_known.then(|| {
        holds([value]);
        JinjaValue::Method(Rc::new((value.clone(), name.into())))
    }))
}

/// What an object has under a name beside methods.
fn field(value: &JinjaValue, name: &str) -> Option<JinjaValue> {
    match value {
        JinjaValue::Namespace(fields) => fields.borrow().get(&DictKey::Str(name.into())).cloned(),
        JinjaValue::Cycler(cycler) if name == "current" => cycler.0.get(cycler.1.get()).cloned(),
        JinjaValue::Macro(of, _) if name == "name" => Some(JinjaValue::from(&*of.name)),
        JinjaValue::Loop(state) => {
            let (at, n) = (state.at.get(), state.items.len());
            let number = |n: usize| JinjaValue::Int(n as i128);
            let item = |at: Option<usize>, which: &str| match at.and_then(|at| state.items.get(at)) {
                Some(item) => item.clone(),
                None => JinjaValue::undefined(format!("there is no {which} item")),
            };
            Some(match name {
                "index" => number(at + 1),
                "index0" => number(at),
                "revindex" => number(n - at),
                "revindex0" => number(n - at - 1),
                "first" => JinjaValue::Bool(at == 0),
                "last" => JinjaValue::Bool(at + 1 == n),
                "length" => number(n),
                "depth" => number(state.depth),
                "depth0" => number(state.depth - 1),
                "previtem" => item(at.checked_sub(1), "previous"),
                "nextitem" => item(Some(at + 1), "next"),
                _ => return None,
            })
        }
        _ => None,
    }
}

/// `value.name`.
///
/// # Errors
/// If the value is undefined, or the attribute would change it.
pub(super) fn attribute(value: &JinjaValue, name: &str) -> Result<JinjaValue> {
    if let JinjaValue::Undefined(what) = value {
        return Err(undefined(what));
    }
    if let Some(found) = field(value, name) {
        return Ok(found);
    }
    if let Some(found) = method(value, name)? {
        return Ok(found);
    }
    if let JinjaValue::Dict(fields) = value
        && let Some(found) = fields.get(&DictKey::Str(name.into()))
    {
        return Ok(found.clone());
    }
    Ok(missing(value, name))
}

/// `value[key]`.
///
/// # Errors
/// As [`attribute`].
pub(super) fn item(value: &JinjaValue, key: &JinjaValue) -> Result<JinjaValue> {
    let found = match (value, key) {
        (JinjaValue::Undefined(what), _) => return Err(undefined(what)),
        (JinjaValue::Dict(fields), _) => key.key().ok().and_then(|key| fields.get(&key).cloned()),
        (JinjaValue::Str(text), JinjaValue::Int(_) | JinjaValue::Bool(_)) => {
            worked(2 * text.len());
            let count = text.chars().count();
            place(key.int()?, count).and_then(|at| text.chars().nth(at)).map(|c| c.to_string().into())
        }
        (JinjaValue::List(items) | JinjaValue::Tuple(items), JinjaValue::Int(_) | JinjaValue::Bool(_)) => {
            place(key.int()?, items.len()).and_then(|at| items.get(at).cloned())
        }
        (JinjaValue::Range(start, _, step), JinjaValue::Int(at)) => place(*at, value.len()?)
            .map(|at| JinjaValue::Int(i128::from(*start) + i128::from(*step) * at as i128)),
        _ => None,
    };
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, JinjaValue::Str(name)) => match field(value, name) {
            Some(found) => Ok(found),
            None => Ok(method(value, name)?.unwrap_or_else(|| missing(value, name))),
        },
        (None, _) => Ok(missing(value, &key.repr())),
    }
}

fn missing(value: &JinjaValue, name: &str) -> JinjaValue {
    JinjaValue::undefined(format!("'{} object' has no attribute {name:?}", value.kind()))
}

/// The place of an index, which counts from the end below 0.
fn place(index: i128, length: usize) -> Option<usize> {
    let at = if index < 0 { index.saturating_add(length as i128) } else { index };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// `value[start:stop:step]`.
///
/// # Errors
/// If the value has no slices, or a bound is no integer.
pub(super) fn slice(value: &JinjaValue, bounds: [JinjaValue; 3]) -> Result<JinjaValue> {
    let bound = |value: &JinjaValue| match value {
        JinjaValue::None => Ok(None),
        value => value.int().map(Some),
    };
    let (start, stop, step) = (bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?.unwrap_or(1));
    if step == 0 {
        bail!("slice step cannot be zero");
    }
    let pick = |length: usize| -> Vec<usize> {
        let n = length as i128;
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let clip = |at: i128| (if at < 0 { at.saturating_add(n) } else { at }).clamp(low, high);
        let (from, to) = if step > 0 { (0, n) } else { (n - 1, -1) };
        let (mut at, to) = (start.map_or(from, clip), stop.map_or(to, clip));
        let mut picked = Vec::new();
        while if step > 0 { at < to } else { at > to } {
            picked.push(at as usize);
            at = at.saturating_add(step);
        }
        picked
    };
    let of = |items: &[JinjaValue]| pick(items.len()).into_iter().map(|at| items[at].clone()).collect();
    Ok(match value {
        JinjaValue::Undefined(what) => return Err(undefined(what)),
        JinjaValue::Str(text) => {
            made(8 * text.len());
            let chars: Vec<char> = text.chars().collect();
            pick(chars.len()).into_iter().map(|at| chars[at]).collect::<String>().into()
        }
        JinjaValue::List(items) => JinjaValue::list(of(items)),
        JinjaValue::Tuple(items) => JinjaValue::tuple(of(items)),
        JinjaValue::Range(..) => JinjaValue::list(of(&value.items()?)),
        other => missing(other, "slice"),
    })
}

/// What `map(attribute='a.b')` reads of an item.
///
/// # Errors
/// As [`item`].
pub(super) fn path(value: &JinjaValue, path: &JinjaValue) -> Result<JinjaValue> {
    if let JinjaValue::Int(_) = path {
        return item(value, path);
    }
    let mut found = value.clone();
    for part in path.text().split('.') {
        let key = match part.parse::<i128>() {
            Ok(number) if part.bytes().all(|b| b.is_ascii_digit()) => JinjaValue::Int(number),
            _ => JinjaValue::from(part),
        };
        found = item(&found, &key)?;
    }
    Ok(found)
}

/// A dictionary with one more field.
pub(super) fn dict_of(fields: impl IntoIterator<Item = (DictKey, JinjaValue)>) -> JinjaValue {
    let fields: Dict = fields.into_iter().collect();
    holds(fields.values());
    JinjaValue::Dict(Rc::new(fields))
}
