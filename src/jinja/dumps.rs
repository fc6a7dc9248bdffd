//! Python's `json.dumps`, as transformers gives it to templates under the name `tojson`.

use anyhow::{Result, bail};

use super::budget::{Level, made};
use super::given::Given;
use super::text::float;
use super::value::{Dict, DictKey, JinjaValue};

/// How JSON is written.
struct Style {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
///
/// # Errors
/// If the value is none of JSON's.
pub(super) fn to_json(value: &JinjaValue, given: Given) -> Result<String> {
    let [ascii, indent, separators, sorted] =
        given.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"], 0)?;
    let indent = match indent {
        None | Some(JinjaValue::None) => None,
        Some(JinjaValue::Str(text)) => Some(text.to_string()),
        Some(number) => Some(" ".repeat(usize::try_from(number.int()?.clamp(0, 1000))?)),
    };
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    match separators {
        None | Some(JinjaValue::None) => {}
        Some(pair) => match pair.items()?.as_slice() {
            [JinjaValue::Str(a), JinjaValue::Str(b)] => (item, key) = (a.to_string(), b.to_string()),
            _ => bail!("tojson: separators = {}; expected two strings", pair.repr()),
        },
    }
    let is = |flag: Option<JinjaValue>| flag.is_some_and(|f| f.is_true());
    let style = Style { ascii: is(ascii), indent, item, key, sorted: is(sorted) };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

impl Style {
    fn write(&self, value: &JinjaValue, depth: usize, out: &mut String) -> Result<()> {
        let _level = Level::enter();
        made(16 + self.key.len() + self.item.len() + value.as_str().map_or(0, |text| 6 * text.len()));
        match value {
            JinjaValue::None => out.push_str("null"),
            JinjaValue::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
            JinjaValue::Int(number) => out.push_str(&number.to_string()),
            JinjaValue::Float(number) => out.push_str(&json_float(*number)),
            JinjaValue::Str(text) => self.string(text, out),
            JinjaValue::List(items) | JinjaValue::Tuple(items) => {
                let each = |item: &JinjaValue, out: &mut String| self.write(item, depth + 1, out);
                self.sequence(['[', ']'], items.iter(), depth, out, each)?;
            }
            JinjaValue::Dict(fields) => {
                let each = |(key, value): (&DictKey, &JinjaValue), out: &mut String| {
                    let key = match key {
                        DictKey::Str(text) => text.to_string(),
                        DictKey::Int(number) => number.to_string(),
                        DictKey::Bool(is) => is.to_string(),
                        DictKey::None => "null".into(),
                    };
                    self.string(&key, out);
                    out.push_str(&self.key);
                    self.write(value, depth + 1, out)
                };
                if self.sorted {
                    let mut sorted: Vec<_> = fields.iter().collect();
                    sort(&mut sorted, fields)?;
                    self.sequence(['{', '}'], sorted.into_iter(), depth, out, each)?;
                } else {
                    self.sequence(['{', '}'], fields.iter(), depth, out, each)?;
                }
            }
            other => bail!("Object of type {} is not JSON serializable", other.kind()),
        }
        Ok(())
    }

    fn sequence<T>(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = T>,
        depth: usize,
        out: &mut String,
        each: impl Fn(T, &mut String) -> Result<()>,
    ) -> Result<()> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                made(depth.saturating_mul(indent.len()));
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        let mut is_empty = true;
        for item in items {
            if !is_empty {
                out.push_str(&self.item);
            }
            is_empty = false;
            line(out, depth + 1);
            each(item, out)?;
        }
        if !is_empty {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    c.encode_utf16(&mut [0; 2])
                        .iter()
                        .for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn json_float(number: f64) -> String {
    match number {
        n if n.is_nan() => "NaN".into(),
        n if n.is_infinite() => if n > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        n => float(n),
    }
}

fn sort(fields: &mut [(&DictKey, &JinjaValue)], of: &Dict) -> Result<()> {
    if !of.keys().all(|key| matches!(key, DictKey::Str(_))) {
        bail!("tojson: sort_keys needs keys that are strings");
    }
    fields.sort_by_key(|(key, _)| match key {
        DictKey::Str(text) => text.clone(),
        _ => "".into(),
    });
    Ok(())
}
