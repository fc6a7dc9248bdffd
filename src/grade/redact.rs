//! Text without a secret that a server may repeat.

/// How often text is unescaped in search of a secret: JSON in a string of JSON in a URL is three times.
const MOST_LAYERS: usize = 4;

/// `text` with `[key]` in place of `secret`; where it is there only in escapes (of JSON, of URLs, of HTML), the text is given
/// without these.
pub(super) fn redact(text: &str, secret: &str) -> String {
    let mut layer = text.to_string();
    for _ in 0..MOST_LAYERS {
        if layer.contains(secret) {
            return redact(&layer.replace(secret, "[key]"), secret);
        }
        let next = unescaped(&layer);
        if next == layer {
            break;
        }
        layer = next;
    }
    text.to_string()
}

/// Text with `\uXXXX`, `\xXX`, `\/` and the like, `%XX` and `&#N;` replaced by what they mean.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let found = match c {
            '\\' => backslash(rest),
            '%' => hexadecimal(rest, 1, 2).map(|c| (c, 3)),
            '&' => character_reference(rest),
            _ => None,
        };
        let (meant, length) = found.unwrap_or((c, c.len_utf8()));
        out.push(meant);
        rest = &rest[length..];
    }
    out
}

fn hexadecimal(text: &str, start: usize, digits: usize) -> Option<char> {
    let digits = text.get(start..start + digits)?;
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())?
        .and_then(char::from_u32)
}

fn backslash(text: &str) -> Option<(char, usize)> {
    match text[1..].chars().next()? {
        'u' => hexadecimal(text, 2, 4).map(|c| (c, 6)),
        'x' => hexadecimal(text, 2, 2).map(|c| (c, 4)),
        c @ ('/' | '\\' | '"' | '\'') => Some((c, 2)),
        _ => None,
    }
}

fn character_reference(text: &str) -> Option<(char, usize)> {
    let (number, _) = text.strip_prefix("&#")?.split_once(';')?;
    let value = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    Some((char::from_u32(value.ok()?)?, number.len() + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "sk-a/b+1";
        for text in [
            "it is sk-a/b+1!",
            r"it is sk-a\/b+1!",
            r"it is \u0073k-a/b+1!",
            r"it is \\u0073k-a\\/b+1!",
            "it is sk-a%2Fb%2B1!",
            "it is sk-a&#47;b+1!",
            "it is &#x73;k-a/b+1!",
        ] {
            assert_eq!(redact(text, secret), "it is [key]!", "{text}");
        }
        for text in ["sk-a", r"a \n b \u00", "100% & more &#;", "\\"] {
            assert_eq!(redact(text, secret), text);
        }
    }
}
