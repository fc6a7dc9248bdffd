//! The methods of Python's values.

use std::rc::Rc;

use anyhow::{Result, bail};

use super::budget::made;
use super::formatting;
use super::given::Given;
use super::text::{capitalize, is_space, lines, title};
use super::value::{DictKey, JinjaValue, holds};

/// Longest text that padding may make.
const LONGEST: i128 = 1 << 20;

/// `value.name(given)`.
///
/// # Errors
/// As Python, where the arguments do not fit.
pub(super) fn call(value: &JinjaValue, name: &str, given: Given) -> Result<JinjaValue> {
    match value {
        JinjaValue::Str(text) => of_str(text, name, given),
        JinjaValue::Dict(fields) => Ok(match name {
            "get" => {
                let [key, default] = given.bind("get", ["key", "default"], 1)?;
                let found = key.and_then(|key| key.key().ok()).and_then(|key| fields.get(&key).cloned());
                found.or(default).unwrap_or(JinjaValue::None)
            }
            "copy" => {
                let [] = given.bind("copy", [], 0)?;
                value.clone()
            }
            _ => {
                let [] = given.bind(name, [], 0)?;
                holds(fields.values());
                let pair = |(key, value): (&DictKey, &JinjaValue)| {
                    JinjaValue::tuple(vec![key.value(), value.clone()])
                };
                match name {
                    "keys" => {
                        JinjaValue::View("dict_keys", Rc::new(fields.keys().map(DictKey::value).collect()))
                    }
                    "values" => JinjaValue::View("dict_values", Rc::new(fields.values().cloned().collect())),
                    _ => JinjaValue::View("dict_items", Rc::new(fields.iter().map(pair).collect())),
                }
            }
        }),
        JinjaValue::List(items) | JinjaValue::Tuple(items) => Ok(match name {
            "copy" => value.clone(),
            _ => {
                let [wanted] = given.bind(name, ["value"], 1)?;
                let is = |item: &&JinjaValue| wanted.as_ref().is_some_and(|wanted| item.equals(wanted));
                if name == "count" {
                    JinjaValue::Int(items.iter().filter(is).count() as i128)
                } else {
                    match items.iter().position(|item| is(&item)) {
                        Some(at) => JinjaValue::Int(at as i128),
                        None => bail!("the value is not in the list"),
                    }
                }
            }
        }),
        JinjaValue::Int(number) => Ok(JinjaValue::Int((128 - number.unsigned_abs().leading_zeros()).into())),
        JinjaValue::Float(number) => Ok(JinjaValue::Bool(number.fract() == 0.0)),
        JinjaValue::Cycler(cycler) => {
            let (items, at) = (&cycler.0, &cycler.1);
            let now = at.get();
            at.set(if name == "next" { (now + 1) % items.len() } else { 0 });
            Ok(if name == "next" { items[now].clone() } else { JinjaValue::None })
        }
        JinjaValue::Loop(state) if name == "cycle" => match given.positional.len() {
            0 => bail!("no items for cycling given"),
            n => Ok(given.positional[state.at.get() % n].clone()),
        },
        JinjaValue::Loop(state) => {
            let mut seen = state.seen.borrow_mut();
            let same = |old: &Vec<JinjaValue>| {
                old.len() == given.positional.len()
                    && old.iter().zip(&given.positional).all(|(a, b)| a.equals(b))
            };
            let changed = !seen.as_ref().is_some_and(same);
            *seen = Some(given.positional);
            Ok(JinjaValue::Bool(changed))
        }
        other => bail!("'{}' object has no method {name}", other.kind()),
    }
}

fn of_str(text: &str, name: &str, given: Given) -> Result<JinjaValue> {
    // Most methods go through the text once, and make one of its size.
    made(text.len());
    let all = |is: fn(char) -> bool| JinjaValue::Bool(!text.is_empty() && text.chars().all(is));
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(name, ["chars"], 0)?;
            strip(text, chars.as_ref(), name)?.into()
        }
        "split" | "rsplit" => {
            let [separator, most] = given.bind(name, ["sep", "maxsplit"], 0)?;
            let most = most.map_or(Ok(-1), |most| most.int())?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let parts = match separator {
                None | Some(JinjaValue::None) => words(text, most, name == "rsplit"),
                Some(separator) => {
                    let separator = wanted(&separator)?;
                    if separator.is_empty() {
                        bail!("empty separator");
                    }
                    let most = most.saturating_add(1);
                    let mut parts: Vec<&str> = match name {
                        "split" => text.splitn(most, &*separator).collect(),
                        _ => text.rsplitn(most, &*separator).collect(),
                    };
                    if name == "rsplit" {
                        parts.reverse();
                    }
                    parts
                }
            };
            JinjaValue::list(parts.into_iter().map(JinjaValue::from).collect())
        }
        "splitlines" => {
            let [keep] = given.bind(name, ["keepends"], 0)?;
            let keep = keep.is_some_and(|keep| keep.is_true());
            JinjaValue::list(lines(text, keep).into_iter().map(JinjaValue::from).collect())
        }
        "startswith" | "endswith" => {
            let [what, start, end] = given.bind(name, ["prefix", "start", "end"], 1)?;
            let what = what.unwrap_or(JinjaValue::None);
            let (_, part) = part(text, start, end)?;
            let options = match &what {
                JinjaValue::Tuple(options) => options.to_vec(),
                one => vec![one.clone()],
            };
            let mut found = false;
            for option in options {
                let Some(option) = option.as_str() else {
                    bail!("{name} first arg must be str or a tuple of str, not {}", what.kind())
                };
                found |= if name == "startswith" { part.starts_with(option) } else { part.ends_with(option) };
            }
            JinjaValue::Bool(found)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [what, start, end] = given.bind(name, ["sub", "start", "end"], 1)?;
            let what = wanted(&what.unwrap_or(JinjaValue::None))?;
            let (skipped, part) = part(text, start, end)?;
            if name == "count" {
                let n = if what.is_empty() { part.chars().count() + 1 } else { part.matches(&*what).count() };
                return Ok(JinjaValue::Int(n as i128));
            }
            let at = if name.starts_with('r') { part.rfind(&*what) } else { part.find(&*what) };
            match at {
                Some(at) => JinjaValue::Int((skipped + part[..at].chars().count()) as i128),
                None if name.ends_with("find") => JinjaValue::Int(-1),
                None => bail!("substring not found"),
            }
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"], 2)?;
            let (old, new) =
                (wanted(&old.unwrap_or(JinjaValue::None))?, wanted(&new.unwrap_or(JinjaValue::None))?);
            replace(text, &old, &new, count.map_or(Ok(-1), |count| count.int())?).into()
        }
        "join" => {
            let [items] = given.bind(name, ["iterable"], 1)?;
            let mut parts = Vec::new();
            for (i, item) in items.unwrap_or(JinjaValue::None).items()?.iter().enumerate() {
                match item {
                    JinjaValue::Str(part) => parts.push(part.clone()),
                    _ => bail!("sequence item {i}: expected str instance, {} found", item.kind()),
                }
            }
            made(parts.iter().map(|part| part.len() + text.len()).sum());
            parts.join(text).into()
        }
        "removeprefix" | "removesuffix" => {
            let [what] = given.bind(name, ["affix"], 1)?;
            let what = wanted(&what.unwrap_or(JinjaValue::None))?;
            let cut =
                if name == "removeprefix" { text.strip_prefix(&*what) } else { text.strip_suffix(&*what) };
            cut.unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let [separator] = given.bind(name, ["sep"], 1)?;
            let separator = wanted(&separator.unwrap_or(JinjaValue::None))?;
            if separator.is_empty() {
                bail!("empty separator");
            }
            let found = if name == "partition" {
                text.split_once(&*separator)
            } else {
                text.rsplit_once(&*separator)
            };
            let parts = match found {
                Some((before, after)) => [before, &separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            JinjaValue::tuple(parts.map(JinjaValue::from).to_vec())
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = given.bind(name, ["width", "fillchar"], 1)?;
            let width = width.map_or(Ok(0), |width| width.int())?.clamp(0, LONGEST);
            let fill = fill.map_or(Ok(" ".into()), |fill| wanted(&fill))?;
            if fill.chars().count() != 1 {
                bail!("The fill character must be exactly one character long");
            }
            let missing = usize::try_from(width)?.saturating_sub(text.chars().count());
            let more = |n: usize| fill.repeat(n);
            match name {
                "ljust" => format!("{text}{}", more(missing)),
                "rjust" => format!("{}{text}", more(missing)),
                "zfill" => {
                    let sign = text.len() - text.strip_prefix(['+', '-']).unwrap_or(text).len();
                    format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
                }
                // As CPython: the odd place is on the left where the width is odd.
                _ => {
                    let left = missing / 2 + (missing & usize::try_from(width)? & 1);
                    format!("{}{text}{}", more(left), more(missing - left))
                }
            }
            .into()
        }
        "expandtabs" => {
            let [size] = given.bind(name, ["tabsize"], 0)?;
            let size = usize::try_from(size.map_or(Ok(8), |size| size.int())?.clamp(0, 1000))?;
            made(text.matches('\t').count().saturating_mul(size));
            let (mut out, mut column) = (String::new(), 0);
            for c in text.chars() {
                match c {
                    '\t' if size > 0 => {
                        out.push_str(&" ".repeat(size - column % size));
                        column += size - column % size;
                    }
                    '\t' => {}
                    c => {
                        out.push(c);
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                    }
                }
            }
            out.into()
        }
        "format" => formatting::braces(text, &given)?.into(),
        _ => {
            let [] = given.bind(name, [], 0)?;
            let cased = |is: fn(char) -> bool, isnt: fn(char) -> bool| {
                JinjaValue::Bool(text.chars().any(is) && !text.chars().any(isnt))
            };
            match name {
                "upper" => text.to_uppercase().into(),
                "lower" | "casefold" => text.to_lowercase().into(),
                "title" => title(text).into(),
                "capitalize" => capitalize(text).into(),
                "swapcase" => {
                    let swap = |c: char| -> String {
                        if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
                    };
                    text.chars().map(swap).collect::<String>().into()
                }
                "isspace" => all(is_space),
                "isalpha" => all(char::is_alphabetic),
                "isalnum" => all(char::is_alphanumeric),
                "isdigit" | "isnumeric" => all(char::is_numeric),
                "isdecimal" => all(|c| c.is_ascii_digit() || !c.is_ascii() && c.is_numeric()),
                "isascii" => JinjaValue::Bool(text.is_ascii()),
                "islower" => cased(char::is_lowercase, char::is_uppercase),
                "isupper" => cased(char::is_uppercase, char::is_lowercase),
                "istitle" => JinjaValue::Bool(text.chars().any(char::is_alphabetic) && title(text) == text),
                "isprintable" => {
                    JinjaValue::Bool(!text.chars().any(|c| c.is_control() || (c != ' ' && is_space(c))))
                }
                "isidentifier" => {
                    let begins = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
                    JinjaValue::Bool(begins && text.chars().all(|c| c.is_alphanumeric() || c == '_'))
                }
                other => bail!("'str' object has no method {other}"),
            }
        }
    })
}

/// The text of an argument that must be one.
fn wanted(value: &JinjaValue) -> Result<Rc<str>> {
    match value {
        JinjaValue::Str(text) => Ok(text.clone()),
        other => bail!("a str is expected, found {}", other.kind()),
    }
}

/// A text without the space, or the given characters, at its ends.
///
/// # Errors
/// If the characters are no text.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&JinjaValue>, how: &str) -> Result<&'t str> {
    let chars = match chars {
        None | Some(JinjaValue::None) => None,
        Some(chars) => Some(wanted(chars)?),
    };
    let goes = |c: char| chars.as_ref().map_or(is_space(c), |chars| chars.contains(c));
    let text = if how == "rstrip" { text } else { text.trim_start_matches(goes) };
    Ok(if how == "lstrip" { text } else { text.trim_end_matches(goes) })
}

/// Python's `str.replace`; a negative count replaces all.
pub(super) fn replace(text: &str, old: &str, new: &str, count: i128) -> String {
    let found = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() };
    made(found.saturating_mul(new.len()).saturating_add(text.len()));
    match usize::try_from(count) {
        Ok(count) => text.replacen(old, new, count),
        Err(_) => text.replace(old, new),
    }
}

/// The part of a text between two places, and the characters before it.
fn part(text: &str, start: Option<JinjaValue>, end: Option<JinjaValue>) -> Result<(usize, &str)> {
    let n = text.chars().count() as i128;
    let clip = |value: Option<JinjaValue>, default: i128| -> Result<usize> {
        let at = match value {
            None | Some(JinjaValue::None) => default,
            Some(value) => value.int()?,
        };
        Ok(usize::try_from((if at < 0 { at + n } else { at }).clamp(0, n))?)
    };
    let (start, end) = (clip(start, 0)?, clip(end, n)?);
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    Ok((start, if start < end { &text[byte(start)..byte(end)] } else { "" }))
}

/// Python's `str.split()` and `str.rsplit()`: between runs of space.
fn words(text: &str, most: usize, from_the_end: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() {
        let border = if from_the_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let (Some(at), true) = (border, found.len() < most) else {
            // Only the side that was split is stripped.
            found.push(rest);
            break;
        };
        if from_the_end {
            let width = rest[at..].chars().next().map_or(1, char::len_utf8);
            found.push(&rest[at + width..]);
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            found.push(&rest[..at]);
            rest = rest[at..].trim_start_matches(is_space);
        }
    }
    if from_the_end {
        found.reverse();
    }
    found
}
