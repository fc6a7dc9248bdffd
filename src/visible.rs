//! Text that a model, a file or a server wrote, made safe to show: it may hold any character, escape sequences of a terminal
//! and marks that reverse the direction of the line included. Everything that is printed passes [`visible`] or [`json`].

/// Replaces characters that act on a terminal or on the layout by visible signs; newline and tab stay.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => out.push('␍'),
            '\u{7f}' => out.push('␡'),
            // The block "control pictures" has a sign for each of the 32 codes, in order.
            c if (c as u32) < 0x20 => out.extend(char::from_u32(0x2400 + c as u32)),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => out.push_str(&format!("⟨{:04X}⟩", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Whether a character acts on a terminal or on the layout of a line.
fn acts(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{8}'
            | '\u{b}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// JSON with such characters in JSON's own escapes, which change nothing of its meaning.
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        match acts(c) {
            true => out.push_str(&format!("\\u{:04x}", c as u32)),
            false => out.push(c),
        }
    }
    out
}

/// What is printed: a JSON document as [`json`], anything else as [`visible`].
pub fn printed(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(acts) {
        return text.into();
    }
    let is_json = text.trim_start().starts_with(['{', '['])
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json { json(text).into() } else { visible(text).into() }
}

/// One line of at most `max` characters; line breaks become `↵`, what is cut off `…`.
pub fn one_line(text: &str, max: usize) -> String {
    let line = visible(text.trim()).replace('\n', "↵").replace('\t', " ");
    if line.chars().count() <= max {
        return line;
    }
    let mut cut: String = line.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A decoded token as a reader can tell it from its neighbours: a leading space is `·`, nothing is `∅`.
pub fn token(text: &str) -> String {
    if text.is_empty() {
        return "∅".into();
    }
    visible(text).replace('\n', "↵").replace('\t', "⇥").replace(' ', "·")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_signs() {
        assert_eq!(visible("a\u{1b}[31mb\0"), "a␛[31mb␀");
        assert_eq!(visible("x\u{202e}y"), "x⟨202E⟩y");
        assert_eq!(visible("two\nlines"), "two\nlines");
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"a\u{9b}31m": "x\u{202e}y\u{7f}", "b": ["\u{1b}[0m"]});
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(acts), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(printed("{\"a\": \"\u{9b}\"}"), "{\"a\": \"\\u009b\"}");
        assert_eq!(printed("error: \u{9b}31m\n"), "error: ⟨009B⟩31m\n");
        assert_eq!(printed("plain ü\t"), "plain ü\t");
    }

    #[test]
    fn lines_are_cut_by_characters() {
        assert_eq!(one_line("äöü\nß", 10), "äöü↵ß");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(token(" cake"), "·cake");
        assert_eq!(token(""), "∅");
    }
}
