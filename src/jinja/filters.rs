//! Jinja's filters, and transformers' `tojson`.

use std::cmp::Ordering;
use std::rc::Rc;

use anyhow::{Result, bail};

use super::access::{item, path};
use super::budget::{made, worked};
use super::dumps::to_json;
use super::formatting::percent;
use super::given::Given;
use super::methods;
use super::predicates;
use super::text::{capitalize, lines};
use super::value::{DictKey, JinjaValue, undefined};

/// `value | name(given)`.
///
/// # Errors
/// As Jinja, where the value or the arguments do not fit.
pub(super) fn apply(name: &str, value: &JinjaValue, mut given: Given) -> Result<JinjaValue> {
    // Most filters go through a text once, and make one of its size.
    made(value.as_str().map_or(0, str::len));
    let text = || value.text();
    Ok(match name {
        "default" | "d" => {
            let [default, falsy] = given.bind(name, ["default_value", "boolean"], 0)?;
            let falsy = falsy.is_some_and(|f| f.is_true());
            let is_missing = matches!(value, JinjaValue::Undefined(_)) || (falsy && !value.is_true());
            if is_missing { default.unwrap_or_else(|| "".into()) } else { value.clone() }
        }
        "tojson" => to_json(value, given)?.into(),
        "trim" => {
            let [chars] = given.bind(name, ["chars"], 0)?;
            methods::strip(&text(), chars.as_ref(), "strip")?.into()
        }
        "length" | "count" => JinjaValue::Int(value.len()? as i128),
        "list" => JinjaValue::list(value.items()?),
        "string" => JinjaValue::Str(text()),
        "safe" => JinjaValue::Markup(text()),
        "upper" => text().to_uppercase().into(),
        "lower" => text().to_lowercase().into(),
        "capitalize" => capitalize(&text()).into(),
        "title" => titled(&text()).into(),
        "first" => value
            .items()?
            .into_iter()
            .next()
            .unwrap_or_else(|| JinjaValue::undefined("No first item, sequence was empty.")),
        "last" => {
            value.items()?.pop().unwrap_or_else(|| JinjaValue::undefined("No last item, sequence was empty."))
        }
        "join" => {
            let [separator, attribute] = given.bind(name, ["d", "attribute"], 0)?;
            let separator = separator.map_or_else(|| "".into(), |s| s.text());
            let mut parts = Vec::new();
            for item in value.items()? {
                parts.push(match &attribute {
                    Some(attribute) if !matches!(attribute, JinjaValue::None) => {
                        path(&item, attribute)?.text()
                    }
                    _ => item.text(),
                });
            }
            made(parts.iter().map(|part| part.len() + separator.len()).sum());
            parts.join(&*separator).into()
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"], 2)?;
            let (old, new) = (old.unwrap_or(JinjaValue::None).text(), new.unwrap_or(JinjaValue::None).text());
            let count = match count {
                None | Some(JinjaValue::None) => -1,
                Some(count) => count.int()?,
            };
            methods::replace(&text(), &old, &new, count).into()
        }
        "indent" => indent(&text(), given)?.into(),
        "items" => match value {
            JinjaValue::Undefined(_) => JinjaValue::generator(Vec::new()),
            JinjaValue::Dict(fields) => {
                let pair = |(key, value): (&DictKey, &JinjaValue)| {
                    JinjaValue::tuple(vec![key.value(), value.clone()])
                };
                JinjaValue::generator(fields.iter().map(pair).collect())
            }
            _ => bail!("Can only get item pairs from a mapping."),
        },
        "map" => {
            let attribute = given.named.iter().position(|(name, _)| &**name == "attribute");
            if let (Some(at), true) = (attribute, given.positional.is_empty()) {
                let (_, attribute) = given.named.remove(at);
                let [default] = given.bind(name, ["default"], 0)?;
                let mut mapped = Vec::new();
                for item in items_of(value)? {
                    let found = path(&item, &attribute)?;
                    let is_missing = matches!(found, JinjaValue::Undefined(_));
                    mapped.push(default.clone().filter(|_| is_missing).unwrap_or(found));
                }
                return Ok(JinjaValue::generator(mapped));
            }
            let filter = first_of(name, &mut given)?;
            let items = items_of(value)?;
            let mapped = items.iter().map(|item| apply(&filter, item, given.clone()));
            JinjaValue::generator(mapped.collect::<Result<_>>()?)
        }
        "select" | "reject" => {
            let test = if given.positional.is_empty() { None } else { Some(first_of(name, &mut given)?) };
            chosen(value, name == "select", test, &given, |item| Ok(item.clone()))?
        }
        "selectattr" | "rejectattr" => {
            if given.positional.is_empty() {
                bail!("{name}: missing parameter for attribute name");
            }
            let attribute = given.positional.remove(0);
            let test = if given.positional.is_empty() { None } else { Some(first_of(name, &mut given)?) };
            chosen(value, name == "selectattr", test, &given, |item| path(item, &attribute))?
        }
        "reverse" => match value {
            JinjaValue::Str(text) => text.chars().rev().collect::<String>().into(),
            _ => JinjaValue::generator(value.items()?.into_iter().rev().collect()),
        },
        "sort" => {
            let [reverse, cased, attribute] =
                given.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
            let mut keyed = Vec::new();
            for item in value.items()? {
                keyed.push((sort_keys(&item, attribute.as_ref(), is_true(&cased))?, item));
            }
            JinjaValue::list(sorted(keyed, is_true(&reverse))?)
        }
        "unique" => {
            let [cased, attribute] = given.bind(name, ["case_sensitive", "attribute"], 0)?;
            let mut seen: Vec<JinjaValue> = Vec::new();
            let mut kept = Vec::new();
            for item in value.items()? {
                let key = sort_keys(&item, attribute.as_ref(), is_true(&cased))?;
                if !seen.iter().any(|s| s.equals(&key)) {
                    seen.push(key);
                    kept.push(item);
                }
            }
            JinjaValue::generator(kept)
        }
        "min" | "max" => {
            let [cased, attribute] = given.bind(name, ["case_sensitive", "attribute"], 0)?;
            let mut best: Option<(JinjaValue, JinjaValue)> = None;
            for item in value.items()? {
                let key = sort_keys(&item, attribute.as_ref(), is_true(&cased))?;
                let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
                let is_better = match &best {
                    Some((old, _)) => key.compare(old)? == Some(wanted),
                    None => true,
                };
                if is_better {
                    best = Some((key, item));
                }
            }
            best.map_or_else(
                || JinjaValue::undefined("No aggregated item, sequence was empty."),
                |(_, item)| item,
            )
        }
        "dictsort" => {
            let [cased, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"], 0)?;
            let JinjaValue::Dict(fields) = value else { bail!("dictsort: a '{}' is no dict", value.kind()) };
            let by_value = by.is_some_and(|by| by.as_str() == Some("value"));
            let mut keyed = Vec::new();
            for (key, value) in fields.iter() {
                let of = if by_value { value.clone() } else { key.value() };
                keyed.push((
                    sort_keys(&of, None, is_true(&cased))?,
                    JinjaValue::tuple(vec![key.value(), value.clone()]),
                ));
            }
            JinjaValue::list(sorted(keyed, is_true(&reverse))?)
        }
        "groupby" => {
            let [attribute, default, cased] =
                given.bind(name, ["attribute", "default", "case_sensitive"], 1)?;
            let mut keyed = Vec::new();
            for item in value.items()? {
                let found = path(&item, attribute.as_ref().unwrap_or(&JinjaValue::None))?;
                let is_missing = matches!(found, JinjaValue::Undefined(_));
                let found = default.clone().filter(|_| is_missing).unwrap_or(found);
                keyed.push((sort_keys(&found, None, is_true(&cased))?, JinjaValue::tuple(vec![found, item])));
            }
            let mut groups: Vec<(JinjaValue, JinjaValue, Vec<JinjaValue>)> = Vec::new();
            let keys = keyed.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
            for (pair, key) in sorted(keyed, false)?
                .into_iter()
                .zip(sorted(keys.into_iter().map(|k| (k.clone(), k)).collect(), false)?)
            {
                let (found, item) = (item(&pair, &JinjaValue::Int(0))?, item(&pair, &JinjaValue::Int(1))?);
                match groups.last_mut() {
                    Some((last, _, items)) if last.equals(&key) => items.push(item),
                    _ => groups.push((key, found, vec![item])),
                }
            }
            JinjaValue::list(
                groups
                    .into_iter()
                    .map(|(_, found, items)| JinjaValue::tuple(vec![found, JinjaValue::list(items)]))
                    .collect(),
            )
        }
        "sum" => {
            let [attribute, start] = given.bind(name, ["attribute", "start"], 0)?;
            let mut total = start.unwrap_or(JinjaValue::Int(0));
            for item in value.items()? {
                let item = match &attribute {
                    Some(attribute) if !matches!(attribute, JinjaValue::None) => path(&item, attribute)?,
                    _ => item,
                };
                total = add(&total, &item)?;
            }
            total
        }
        "abs" => match value {
            JinjaValue::Float(number) => JinjaValue::Float(number.abs()),
            _ => JinjaValue::Int(value.int()?.saturating_abs()),
        },
        "int" => {
            let [default, base] = given.bind(name, ["default", "base"], 0)?;
            let base = base.map_or(Ok(10), |base| base.int())?;
            match value {
                JinjaValue::Undefined(what) => return Err(undefined(what)),
                JinjaValue::Float(number) if number.is_finite() => JinjaValue::Int(number.trunc() as i128),
                JinjaValue::Str(text) => {
                    integer(text, base).map_or_else(|| default.unwrap_or(JinjaValue::Int(0)), JinjaValue::Int)
                }
                _ => value.int().map_or_else(|_| default.unwrap_or(JinjaValue::Int(0)), JinjaValue::Int),
            }
        }
        "float" => {
            let [default] = given.bind(name, ["default"], 0)?;
            let found = match value {
                JinjaValue::Undefined(what) => return Err(undefined(what)),
                JinjaValue::Str(text) => text.trim().replace('_', "").parse().ok(),
                _ => value.number(),
            };
            found.map_or_else(|| default.unwrap_or(JinjaValue::Float(0.0)), JinjaValue::Float)
        }
        "round" => {
            let [precision, method] = given.bind(name, ["precision", "method"], 0)?;
            let precision = precision.map_or(Ok(0), |p| p.int())?.clamp(-300, 300) as i32;
            let Some(number) = value.number() else {
                bail!("round: a number is expected, found {}", value.kind())
            };
            let scale = 10f64.powi(precision);
            let method = method.map_or_else(|| "common".into(), |m| m.text());
            if matches!(value, JinjaValue::Int(_)) && &*method == "common" && precision >= 0 {
                return Ok(value.clone());
            }
            JinjaValue::Float(match &*method {
                "common" if precision >= 0 => {
                    format!("{number:.*}", precision as usize).parse().unwrap_or(number)
                }
                "common" => (number * scale).round_ties_even() / scale,
                "ceil" => (number * scale).ceil() / scale,
                "floor" => (number * scale).floor() / scale,
                other => bail!("round: method {other:?}; expected common, ceil or floor"),
            })
        }
        "batch" | "slice" => {
            let [count, fill] = given.bind(name, ["count", "fill_with"], 1)?;
            let count =
                usize::try_from(count.map_or(Ok(1), |n| n.int())?).ok().filter(|n| (1..=100_000).contains(n));
            let Some(count) = count else { bail!("{name}: expected a number from 1 to 100000") };
            let items = value.items()?;
            let fill = fill.filter(|fill| !matches!(fill, JinjaValue::None));
            let mut parts: Vec<Vec<JinjaValue>> = Vec::new();
            if name == "batch" {
                parts.extend(items.chunks(count).map(<[JinjaValue]>::to_vec));
                if let (Some(last), Some(fill)) = (parts.last_mut(), fill) {
                    last.resize(count, fill);
                }
            } else {
                let (each, more) = (items.len() / count, items.len() % count);
                let mut at = 0;
                for i in 0..count {
                    let size = each + usize::from(i < more);
                    let mut part = items[at..at + size].to_vec();
                    part.extend(fill.clone().filter(|_| i >= more));
                    parts.push(part);
                    at += size;
                }
            }
            JinjaValue::generator(parts.into_iter().map(JinjaValue::list).collect())
        }
        "attr" => {
            let [of] = given.bind(name, ["name"], 1)?;
            super::access::attribute(value, &of.unwrap_or(JinjaValue::None).text())?
        }
        "escape" | "e" | "forceescape" => {
            made(5 * text().len());
            JinjaValue::Markup(escaped(&text()).into())
        }
        "format" => {
            if !given.named.is_empty() {
                if !given.positional.is_empty() {
                    bail!("can't handle positional and keyword arguments at the same time");
                }
                let fields = given.named.into_iter().map(|(name, value)| (DictKey::Str(name), value));
                return Ok(percent(&text(), &super::access::dict_of(fields))?.into());
            }
            percent(&text(), &JinjaValue::tuple(given.positional))?.into()
        }
        "pprint" => value.repr().into(),
        "center" => {
            let [width] = given.bind(name, ["width"], 0)?;
            let given = Given { positional: vec![width.unwrap_or(JinjaValue::Int(80))], named: Vec::new() };
            methods::call(&JinjaValue::Str(text()), "center", given)?
        }
        "wordcount" => {
            let text = text();
            let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
            JinjaValue::Int(words.count() as i128)
        }
        "truncate" => truncate(&text(), given)?.into(),
        "urlencode" => {
            let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~/".contains(b);
            let byte = |b: u8| if is_plain(&b) { (b as char).to_string() } else { format!("%{b:02X}") };
            text().bytes().map(byte).collect::<String>().into()
        }
        other => bail!("no filter named {other:?} is supported"),
    })
}

/// The items of a value; none of one that is false, None among them, as `map` and `select` have it.
fn items_of(value: &JinjaValue) -> Result<Vec<JinjaValue>> {
    if value.is_true() { value.items() } else { Ok(Vec::new()) }
}

fn is_true(flag: &Option<JinjaValue>) -> bool {
    flag.as_ref().is_some_and(JinjaValue::is_true)
}

/// The name of a filter or test that is the first argument.
fn first_of(filter: &str, given: &mut Given) -> Result<Rc<str>> {
    if given.positional.is_empty() {
        bail!("{filter} requires a filter argument");
    }
    Ok(given.positional.remove(0).text())
}

/// The items that pass a test, or those that do not.
fn chosen(
    value: &JinjaValue,
    wanted: bool,
    test: Option<Rc<str>>,
    given: &Given,
    of: impl Fn(&JinjaValue) -> Result<JinjaValue>,
) -> Result<JinjaValue> {
    let mut kept = Vec::new();
    for item in items_of(value)? {
        let tested = of(&item)?;
        let passes = match &test {
            Some(test) => predicates::test(test, &tested, given.clone())?,
            None => tested.is_true(),
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    Ok(JinjaValue::generator(kept))
}

/// What an item is sorted by: itself or attributes of it, without regard to capitals unless asked for.
fn sort_keys(item: &JinjaValue, attribute: Option<&JinjaValue>, cased: bool) -> Result<JinjaValue> {
    let fold = |value: JinjaValue| match &value {
        JinjaValue::Str(text) if !cased => text.to_lowercase().into(),
        _ => value,
    };
    Ok(match attribute {
        None | Some(JinjaValue::None) => fold(item.clone()),
        Some(JinjaValue::Str(paths)) if paths.contains(',') => {
            let parts = paths.split(',').map(|one| Ok(fold(path(item, &JinjaValue::from(one))?)));
            JinjaValue::list(parts.collect::<Result<_>>()?)
        }
        Some(attribute) => fold(path(item, attribute)?),
    })
}

/// Items in the order of their keys; equal ones keep theirs.
fn sorted(mut keyed: Vec<(JinjaValue, JinjaValue)>, reverse: bool) -> Result<Vec<JinjaValue>> {
    let mut fault = None;
    worked(keyed.len().saturating_mul(16));
    keyed.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b).unwrap_or_else(|e| {
            fault.get_or_insert(e);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

/// Text with the signs of HTML escaped, as MarkupSafe does it.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('>', "&gt;").replace('<', "&lt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// Python's `+`.
///
/// # Errors
/// If Python does not add these two.
pub(super) fn add(a: &JinjaValue, b: &JinjaValue) -> Result<JinjaValue> {
    Ok(match (a, b) {
        (JinjaValue::Undefined(what), _) | (_, JinjaValue::Undefined(what)) => return Err(undefined(what)),
        (JinjaValue::Str(a), JinjaValue::Str(b)) => format!("{a}{b}").into(),
        (JinjaValue::Markup(a), JinjaValue::Markup(b)) => JinjaValue::Markup(format!("{a}{b}").into()),
        (JinjaValue::Markup(a), JinjaValue::Str(b)) => {
            JinjaValue::Markup(format!("{a}{}", escaped(b)).into())
        }
        (JinjaValue::Str(a), JinjaValue::Markup(b)) => {
            JinjaValue::Markup(format!("{}{b}", escaped(a)).into())
        }
        (JinjaValue::List(a), JinjaValue::List(b)) => JinjaValue::list([&a[..], &b[..]].concat()),
        (JinjaValue::Tuple(a), JinjaValue::Tuple(b)) => JinjaValue::tuple([&a[..], &b[..]].concat()),
        (JinjaValue::Int(_) | JinjaValue::Bool(_), JinjaValue::Int(_) | JinjaValue::Bool(_)) => {
            match a.int()?.checked_add(b.int()?) {
                Some(sum) => JinjaValue::Int(sum),
                None => bail!("too large a number"),
            }
        }
        (JinjaValue::Str(_), _) => bail!("can only concatenate str (not \"{}\") to str", b.kind()),
        _ => match (a.number(), b.number()) {
            (Some(a), Some(b)) => JinjaValue::Float(a + b),
            _ => bail!("unsupported operand type(s) for +: '{}' and '{}'", a.kind(), b.kind()),
        },
    })
}

/// Python's `int(text, base)`, and of a float's text its whole part.
fn integer(text: &str, base: i128) -> Option<i128> {
    let trimmed = text.trim().replace('_', "");
    let (sign, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, trimmed.strip_prefix('+').unwrap_or(&trimmed)),
    };
    let lower = digits.to_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let radix = u32::try_from(base).ok().filter(|r| (2..=36).contains(r))?;
    let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
    match i128::from_str_radix(digits, radix) {
        Ok(number) if !digits.starts_with(['+', '-']) => Some(sign * number),
        _ => trimmed.parse::<f64>().ok().filter(|f| f.is_finite() && base == 10).map(|f| f.trunc() as i128),
    }
}

/// Jinja's `title`: the letter after a space, a hyphen or an opening bracket is a capital, the others are not.
fn titled(text: &str) -> String {
    let mut begins = true;
    let mut out = String::new();
    for c in text.chars() {
        let is_border = c.is_whitespace() || "-({[<".contains(c);
        match (is_border, begins) {
            (true, _) => out.push(c),
            (false, true) => out.extend(c.to_uppercase()),
            (false, false) => out.extend(c.to_lowercase()),
        }
        begins = is_border;
    }
    out
}

fn indent(text: &str, given: Given) -> Result<String> {
    let [width, first, blank] = given.bind("indent", ["width", "first", "blank"], 0)?;
    let indent = match width {
        None => " ".repeat(4),
        Some(JinjaValue::Str(text)) => text.to_string(),
        Some(width) => " ".repeat(usize::try_from(width.int()?.clamp(0, 1000))?),
    };
    // Jinja adds a line break first, so that one at the end counts.
    let text = format!("{text}\n");
    made(text.matches('\n').count().saturating_mul(indent.len()));
    let mut out = String::new();
    for (i, line) in lines(&text, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { is_true(&first) } else { !line.is_empty() || is_true(&blank) } {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn truncate(text: &str, given: Given) -> Result<String> {
    let [length, kills, end, leeway] = given.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let number = |value: Option<JinjaValue>, default: i128| -> Result<usize> {
        Ok(usize::try_from(value.map_or(Ok(default), |v| v.int())?.max(0))?)
    };
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = end.map_or_else(|| "...".into(), |end| end.text());
    let of_end = end.chars().count();
    if length < of_end {
        bail!("truncate: expected length >= {of_end}, got {length}");
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_string());
    }
    let cut: String = text.chars().take(length - of_end).collect();
    let cut =
        if is_true(&kills) { &cut[..] } else { cut.rsplit_once(' ').map_or(&cut[..], |(words, _)| words) };
    Ok(format!("{cut}{end}"))
}
