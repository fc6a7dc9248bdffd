//! From the text of a template to tokens, with the space that `-`, `trim_blocks` and `lstrip_blocks` take away.

use anyhow::{Result, bail};

use super::text::is_space;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JinjaToken {
    /// Text between tags.
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
}

/// Longest first.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",",
];

/// Tokens, each with its line from one.
///
/// # Errors
/// At a tag or a string without an end, and at a sign that no tag may hold.
pub(super) fn lex(source: &str) -> Result<Vec<(JinjaToken, usize)>> {
    // Jinja reads every kind of line break as \n, and drops the last one.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, tokens: Vec::new(), line: 1, counted: 0 };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<(JinjaToken, usize)>,
    /// Line of the byte `counted`.
    line: usize,
    counted: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn line(&mut self) -> usize {
        self.line += self.source[self.counted..self.at].matches('\n').count();
        self.counted = self.at;
        self.line
    }

    fn push(&mut self, token: JinjaToken) {
        let line = self.line();
        self.tokens.push((token, line));
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            // One pass: a tag that is not there at all would otherwise be looked for behind each of the others.
            let is_tag = |(at, _): &(usize, &str)| rest[at + 1..].starts_with(['%', '{', '#']);
            let begin = rest.match_indices('{').find(is_tag).map(|(at, _)| at);
            let Some(begin) = begin else {
                self.data(rest);
                return Ok(());
            };
            let (text, tag) = (&rest[..begin], &rest[begin..begin + 2]);
            let sign = sign_at(&rest[begin + 2..]);
            let text = self.before_tag(text, sign, tag == "{{");
            self.data(text);
            self.at += begin + 2 + usize::from(sign.is_some());
            match tag {
                "{#" => self.comment()?,
                "{{" => {
                    self.push(JinjaToken::VariableBegin);
                    self.code("}}", false)?;
                    self.push(JinjaToken::VariableEnd);
                }
                _ if self.raw()? => {}
                _ => {
                    self.push(JinjaToken::BlockBegin);
                    self.code("%}", true)?;
                    self.push(JinjaToken::BlockEnd);
                }
            }
        }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(JinjaToken::Data(text.to_string()));
        }
    }

    /// The text in front of a tag, without the space that the tag takes away.
    fn before_tag(&self, text: &'a str, sign: Option<char>, is_variable: bool) -> &'a str {
        if sign == Some('-') {
            return text.trim_end_matches(is_space);
        }
        if sign == Some('+') || is_variable {
            return text;
        }
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let begins_a_line = line > 0 || self.at == 0 || self.source[..self.at].ends_with('\n');
        if begins_a_line && text[line..].chars().all(is_space) { &text[..line] } else { text }
    }

    /// Passes over the end of a tag: the space behind `-`, else one line break unless `+` keeps it.
    fn pass_end(&mut self, sign: Option<char>, trims: bool) {
        match sign {
            Some('-') => self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len(),
            None if trims && self.rest().starts_with('\n') => self.at += 1,
            _ => {}
        }
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else {
            bail!("line {}: a comment without its end", self.line())
        };
        let sign = self.rest()[..end].chars().next_back().filter(|c| matches!(c, '-' | '+'));
        self.at += end + 2;
        self.pass_end(sign, true);
        Ok(())
    }

    /// Reads a raw block, if here is one.
    fn raw(&mut self) -> Result<bool> {
        let word = self.rest().trim_start_matches(is_space);
        let Some(behind) = word.strip_prefix("raw") else { return Ok(false) };
        let behind = behind.trim_start_matches(is_space);
        let (sign, behind) = match behind.strip_prefix('-') {
            Some(behind) => (Some('-'), behind),
            None => (None, behind),
        };
        let Some(behind) = behind.strip_prefix("%}") else { return Ok(false) };
        self.at = self.source.len() - behind.len();
        self.pass_end(sign, false);
        let mut from = 0;
        while let Some(begin) = self.rest()[from..].find("{%").map(|at| at + from) {
            let rest = self.rest();
            let open = sign_at(&rest[begin + 2..]);
            let word = rest[begin + 2 + usize::from(open.is_some())..].trim_start_matches(is_space);
            let behind = word.strip_prefix("endraw").map(|w| w.trim_start_matches(is_space));
            let close = behind.and_then(sign_at).filter(|_| !behind.unwrap_or_default().starts_with("%}"));
            let end = behind.and_then(|b| b[usize::from(close.is_some())..].strip_prefix("%}"));
            if let Some(end) = end {
                let text = self.before_tag(&rest[..begin], open, false);
                self.data(text);
                self.at = self.source.len() - end.len();
                self.pass_end(close, true);
                return Ok(true);
            }
            from = begin + 2;
        }
        bail!("line {}: a raw block without its end", self.line())
    }

    /// The tokens up to the end of a tag.
    fn code(&mut self, end: &str, trims: bool) -> Result<()> {
        let opened = self.line();
        let mut open: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { bail!("line {opened}: a tag without its end") };
            if open.is_empty() {
                let sign = if rest.starts_with('-') || (trims && rest.starts_with('+')) {
                    sign_at(rest)
                } else {
                    None
                };
                if rest[usize::from(sign.is_some())..].starts_with(end) {
                    self.at += usize::from(sign.is_some()) + end.len();
                    self.pass_end(sign, trims);
                    return Ok(());
                }
            }
            if is_space(first) {
                self.at += first.len_utf8();
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                self.push(JinjaToken::Name(rest[..end].to_string()));
                self.at += end;
            } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                match *op {
                    "(" | "[" | "{" => open.push(first),
                    ")" | "]" | "}" => {
                        let expected = match open.pop() {
                            Some('(') => ")",
                            Some('[') => "]",
                            Some(_) => "}",
                            None => bail!("line {}: {op} closes nothing", self.line()),
                        };
                        if *op != expected {
                            bail!("line {}: {op}; expected {expected}", self.line());
                        }
                    }
                    _ => {}
                }
                self.push(JinjaToken::Op(op));
                self.at += op.len();
            } else {
                bail!("line {}: {first:?}; expected a name, a number, a string or an operator", self.line());
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        let end = body.find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { bail!("line {}: a string without its end", self.line()) };
        let text = unescaped(&body[..end])?;
        self.push(JinjaToken::Str(text));
        self.at += end + 2;
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str, radix: u32| {
            let is_digit = |c: char| c.is_digit(radix) || c == '_';
            text.find(|c: char| !is_digit(c)).unwrap_or(text.len())
        };
        let lower = rest.get(..2).map(str::to_lowercase).unwrap_or_default();
        let radix = [("0b", 2), ("0o", 8), ("0x", 16)].into_iter().find(|(begin, _)| lower == *begin);
        if let Some((_, radix)) = radix {
            let end = 2 + digits(&rest[2..], radix);
            let Ok(number) = i128::from_str_radix(&rest[2..end].replace('_', ""), radix) else {
                bail!("line {}: {}; expected a number", self.line(), &rest[..end])
            };
            self.push(JinjaToken::Int(number));
            self.at += end;
            return Ok(());
        }
        let mut end = digits(rest, 10);
        let whole = end;
        // `x.0.1` is two subscripts.
        let is_subscript = self.source[..self.at].ends_with('.');
        let begins_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        if !is_subscript {
            if rest[end..].starts_with('.') && begins_digit(&rest[end + 1..]) {
                end += 1 + digits(&rest[end + 1..], 10);
            }
            if rest[end..].starts_with(['e', 'E']) {
                let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
                if begins_digit(&rest[end + 1 + sign..]) {
                    end += 1 + sign + digits(&rest[end + 1 + sign..], 10);
                }
            }
        }
        let text = rest[..end].replace('_', "");
        let token = match end == whole {
            true => text.parse().ok().map(JinjaToken::Int),
            false => text.parse().ok().map(JinjaToken::Float),
        };
        let Some(token) = token else { bail!("line {}: {text}: too large a number", self.line()) };
        self.push(token);
        self.at += end;
        Ok(())
    }
}

fn sign_at(text: &str) -> Option<char> {
    text.chars().next().filter(|c| matches!(c, '-' | '+'))
}

/// The text that a string's source means in Python. A backslash before a sign that means nothing stays.
fn unescaped(source: &str) -> Result<String> {
    let mut text = String::with_capacity(source.len());
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        let Some(sign) = chars.next() else { bail!("a string ends with a single backslash") };
        let plain = match sign {
            '\n' => continue,
            '\\' | '\'' | '"' => sign,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                let mut code = sign.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                char::from_u32(code).unwrap_or('\u{fffd}')
            }
            'x' | 'u' | 'U' => {
                let length = match sign {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits: String = chars.by_ref().take(length).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == length);
                match code.and_then(char::from_u32) {
                    Some(c) => c,
                    None => bail!(
                        "\\{sign}{digits} in a string; expected {length} hexadecimal digits of a character"
                    ),
                }
            }
            'N' => bail!("\\N in a string is not supported; expected the character itself, or \\u"),
            other => {
                text.push('\\');
                other
            }
        };
        text.push(plain);
    }
    Ok(text)
}
