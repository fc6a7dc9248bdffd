//! Python's `"%s" % value` and `"{}".format(value)`.

use anyhow::{Result, bail};

use super::access::{attribute, item};
use super::budget::made;
use super::given::Given;
use super::value::{DictKey, JinjaValue};

/// How one value is laid out: `[[fill]align][sign][0][width][,][.precision][kind]`.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    plus: bool,
    width: usize,
    commas: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Widest field: a wider one is a fault.
const WIDEST: usize = 10_000;

impl Spec {
    fn parse(source: &str) -> Result<Self> {
        let mut spec = Self::default();
        let chars: Vec<char> = source.chars().collect();
        let is_align = |at: usize| chars.get(at).is_some_and(|c| "<>^=".contains(*c));
        let mut at = 0;
        if is_align(1) {
            (spec.fill, spec.align, at) = (Some(chars[0]), Some(chars[1]), 2);
        } else if is_align(0) {
            (spec.align, at) = (Some(chars[0]), 1);
        }
        if let Some(sign) = chars.get(at).filter(|c| "+- ".contains(**c)) {
            (spec.plus, at) = (*sign == '+', at + 1);
        }
        if chars.get(at) == Some(&'0') {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = spec.align.or(Some('='));
            at += 1;
        }
        let number = |at: &mut usize| -> Result<Option<usize>> {
            let digits: String = chars[*at..].iter().take_while(|c| c.is_ascii_digit()).collect();
            *at += digits.len();
            if digits.is_empty() {
                return Ok(None);
            }
            match digits.parse().ok().filter(|n| *n <= WIDEST) {
                Some(number) => Ok(Some(number)),
                None => bail!("{source}: a field of {digits}; expected at most {WIDEST}"),
            }
        };
        spec.width = number(&mut at)?.unwrap_or(0);
        if chars.get(at) == Some(&',') {
            (spec.commas, at) = (true, at + 1);
        }
        if chars.get(at) == Some(&'.') {
            at += 1;
            spec.precision = number(&mut at)?;
        }
        spec.kind = chars.get(at).copied();
        if chars.len() > at + 1 {
            bail!("{source}: unknown format");
        }
        Ok(spec)
    }

    fn lay_out(&self, value: &JinjaValue) -> Result<String> {
        made(self.width + self.precision.unwrap_or(0) + value.as_str().map_or(0, str::len));
        let number = value.number();
        let kind = match (self.kind, value) {
            (Some(kind), _) => kind,
            (None, JinjaValue::Float(_)) if self.precision.is_some() => 'g',
            (None, JinjaValue::Int(_)) => 'd',
            (None, _) => 's',
        };
        let whole = || -> Result<i128> {
            match value {
                JinjaValue::Float(number) => Ok(number.trunc() as i128),
                _ => value.int(),
            }
        };
        let real = || match number {
            Some(number) => Ok(number),
            None => bail!("a number is expected, found {}", value.kind()),
        };
        let (negative, digits) = match kind {
            's' => {
                let text = value.text();
                let cut: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
                return Ok(self.pad(&cut, '<'));
            }
            'd' | 'i' | 'u' => (whole()? < 0, whole()?.unsigned_abs().to_string()),
            'x' => (whole()? < 0, format!("{:x}", whole()?.unsigned_abs())),
            'X' => (whole()? < 0, format!("{:X}", whole()?.unsigned_abs())),
            'o' => (whole()? < 0, format!("{:o}", whole()?.unsigned_abs())),
            'b' => (whole()? < 0, format!("{:b}", whole()?.unsigned_abs())),
            'f' | 'F' => (real()? < 0.0, format!("{:.*}", self.precision.unwrap_or(6), real()?.abs())),
            '%' => (real()? < 0.0, format!("{:.*}%", self.precision.unwrap_or(6), (real()? * 100.0).abs())),
            'e' => (real()? < 0.0, exponent(real()?.abs(), self.precision.unwrap_or(6))),
            'g' => (real()? < 0.0, general(real()?.abs(), self.precision.unwrap_or(6).max(1))),
            other => bail!("unknown format {other:?} of a {}", value.kind()),
        };
        let digits = if self.commas { with_commas(&digits) } else { digits };
        let sign = match (negative, self.plus) {
            (true, _) => "-",
            (_, true) => "+",
            _ => "",
        };
        if self.align == Some('=') {
            let fill = self.width.saturating_sub(sign.len() + digits.len());
            let fill = self.fill.unwrap_or(' ').to_string().repeat(fill);
            return Ok(format!("{sign}{fill}{digits}"));
        }
        Ok(self.pad(&format!("{sign}{digits}"), '>'))
    }

    fn pad(&self, text: &str, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = |n: usize| self.fill.unwrap_or(' ').to_string().repeat(n);
        match self.align.unwrap_or(default) {
            '>' => format!("{}{text}", fill(missing)),
            '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{text}{}", fill(missing)),
        }
    }
}

fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn general(number: f64, precision: usize) -> String {
    let size = if number == 0.0 { 0 } else { number.log10().floor() as i64 };
    let text = if size < -4 || size >= precision as i64 {
        exponent(number, precision - 1)
    } else {
        format!("{number:.*}", (precision as i64 - 1 - size).max(0) as usize)
    };
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => {
            format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        None if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        _ => text,
    }
}

fn with_commas(digits: &str) -> String {
    let (whole, rest) = digits.find(['.', '%', 'e']).map_or((digits, ""), |at| digits.split_at(at));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + rest
}

/// `"%s" % value`.
///
/// # Errors
/// If the values do not fit the format.
pub(super) fn percent(format: &str, value: &JinjaValue) -> Result<String> {
    let values = match value {
        JinjaValue::Tuple(items) => items.to_vec(),
        other => vec![other.clone()],
    };
    let (mut out, mut next, mut named) = (String::new(), 0, false);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let mut key = None;
        if let Some(behind) = rest.strip_prefix('(') {
            let Some((name, behind)) = behind.split_once(')') else {
                bail!("{format}: incomplete format key")
            };
            (key, rest, named) = (Some(name), behind, true);
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic());
        let Some(end) = end else { bail!("{format}: incomplete format") };
        let kind = rest[end..].chars().next().unwrap_or('s');
        let found = match key {
            Some(name) => match value {
                JinjaValue::Dict(fields) => fields.get(&DictKey::Str(name.into())).cloned(),
                _ => bail!("{format}: format requires a mapping"),
            },
            None => values.get(next).cloned(),
        };
        next += usize::from(key.is_none());
        let Some(found) = found else { bail!("{format}: not enough arguments for format string") };
        let found = if kind == 'r' { JinjaValue::from(found.repr()) } else { found };
        let flags = &rest[..end];
        // `-` pads behind here, and numbers and texts alike are padded in front without it.
        let spec = match flags.strip_prefix('-') {
            Some(width) => format!("<{width}"),
            None if flags.is_empty() || flags.starts_with(['.', '0', '+']) => flags.to_string(),
            None => format!(">{flags}"),
        };
        let spec = Spec::parse(&format!("{spec}{}", if kind == 'r' { 's' } else { kind }))?;
        if kind != 's' && kind != 'r' && found.number().is_none() {
            bail!("%{kind} format: a number is required, not {}", found.kind());
        }
        out.push_str(&spec.lay_out(&found)?);
        rest = &rest[end + 1..];
    }
    if next < values.len() && !named && !matches!(value, JinjaValue::Dict(_)) {
        bail!("not all arguments converted during string formatting");
    }
    Ok(out + rest)
}

/// `"{}".format(...)`.
///
/// # Errors
/// If the values do not fit the format.
pub(super) fn braces(format: &str, given: &Given) -> Result<String> {
    let (mut out, mut next) = (String::new(), 0);
    let mut chars = format.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '{' | '}' if format[at + 1..].starts_with(c) => {
                chars.next();
                out.push(c);
            }
            '{' => {
                let Some(end) = format[at..].find('}').map(|end| at + end) else {
                    bail!("{format}: expected '}}' before end of string")
                };
                let field = &format[at + 1..end];
                while chars.offset() <= end {
                    chars.next();
                }
                let (field, spec) = field.split_once(':').unwrap_or((field, ""));
                let (path, conversion) = field.split_once('!').unwrap_or((field, ""));
                let name_end = path.find(['.', '[']).unwrap_or(path.len());
                let name = &path[..name_end];
                let found = if name.is_empty() {
                    next += 1;
                    given.positional.get(next - 1)
                } else if let Ok(place) = name.parse::<usize>() {
                    given.positional.get(place)
                } else {
                    given.named.iter().find(|(n, _)| **n == *name).map(|(_, value)| value)
                };
                let Some(mut found) = found.cloned() else { bail!("{format}: no value for {{{field}}}") };
                let mut path = &path[name_end..];
                while !path.is_empty() {
                    let (link, end) = match path.strip_prefix('[') {
                        Some(inner) => {
                            let end = inner.find(']').unwrap_or(inner.len());
                            let key = inner[..end]
                                .parse()
                                .map_or_else(|_| JinjaValue::from(&inner[..end]), JinjaValue::Int);
                            (item(&found, &key)?, (end + 2).min(path.len()))
                        }
                        None => {
                            let inner = &path[1..];
                            let end = inner.find(['.', '[']).unwrap_or(inner.len());
                            (attribute(&found, &inner[..end])?, end + 1)
                        }
                    };
                    (found, path) = (link, &path[end..]);
                }
                let found = match conversion {
                    "" => found,
                    "r" => JinjaValue::from(found.repr()),
                    "s" => JinjaValue::Str(found.text()),
                    other => bail!("{format}: unknown conversion {other:?}"),
                };
                out.push_str(&Spec::parse(spec)?.lay_out(&found)?);
            }
            '}' => bail!("{format}: single '}}'"),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_formats_are_python_s() {
        let pair = JinjaValue::tuple(vec![JinjaValue::from("a"), JinjaValue::Float(2.5)]);
        assert_eq!(percent("%s is %.2f, 100%%", &pair).unwrap(), "a is 2.50, 100%");
        assert_eq!(
            percent("%05d|%-4s|", &JinjaValue::tuple(vec![JinjaValue::Int(-7), JinjaValue::from("b")]))
                .unwrap(),
            "-0007|b   |"
        );
        assert!(
            percent("%d", &JinjaValue::from("a")).is_err() && percent("%s %s", &JinjaValue::None).is_err()
        );
        let given =
            Given { positional: vec![JinjaValue::Int(1234567), JinjaValue::from("x")], ..Given::default() };
        assert_eq!(braces("{{{0:,}}} {1:>3} {1!r}", &given).unwrap(), "{1,234,567}   x 'x'");
        assert_eq!(braces("{} {}", &given).unwrap(), "1234567 x");
        assert!(braces("{2}", &given).is_err() && braces("{", &given).is_err());
    }
}
