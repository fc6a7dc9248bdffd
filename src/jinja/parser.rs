//! From tokens to the tree, after the grammar of Jinja 3.1 (`jinja2/parser.py`).

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::ast::{Arguments, Binary, CompareOp, Expr, FilterCall, For, Macro, Stmt, StmtKind, Target};
use super::lexer::{JinjaToken, lex};

/// Brackets, operators and blocks within each other: deeper ones would exhaust the stack.
const DEEPEST: usize = 64;

/// Operators in a row: each lies within the next.
const LONGEST: usize = 4 * DEEPEST;

/// Names that cannot be assigned to.
const RESERVED: [&str; 8] = ["true", "True", "false", "False", "none", "None", "not", "in"];

/// The statements of a template, and the names and strings in its code.
///
/// # Errors
/// Where the source is not Jinja, with the line.
pub(super) fn parse(source: &str) -> Result<(Vec<Stmt>, BTreeSet<String>)> {
    let tokens = lex(source)?;
    let words = tokens.iter().filter_map(|(token, _)| match token {
        JinjaToken::Name(word) | JinjaToken::Str(word) => Some(word.clone()),
        _ => None,
    });
    let words = words.collect();
    let mut parser = Parser { tokens, at: 0, depth: 0, names: Vec::new() };
    let body = parser.body(&[])?;
    match parser.at < parser.tokens.len() {
        true => parser.fail("the end of the template"),
        false => Ok((body, words)),
    }
}

struct Parser {
    tokens: Vec<(JinjaToken, usize)>,
    at: usize,
    depth: usize,
    /// Names that expressions use, in order.
    names: Vec<Arc<str>>,
}

impl Parser {
    fn peek(&self) -> Option<&JinjaToken> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn fail<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            None => "the end of the template".to_string(),
            Some(JinjaToken::Name(name)) => format!("{name:?}"),
            Some(JinjaToken::Op(op)) => format!("{op:?}"),
            Some(JinjaToken::Str(text)) => format!("the string {text:?}"),
            Some(JinjaToken::Int(_) | JinjaToken::Float(_)) => "a number".into(),
            Some(JinjaToken::Data(_)) => "text".into(),
            Some(JinjaToken::BlockBegin | JinjaToken::VariableBegin) => "the beginning of a tag".into(),
            Some(JinjaToken::BlockEnd | JinjaToken::VariableEnd) => "the end of a tag".into(),
        };
        bail!("line {}: {found}; expected {expected}", self.line())
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(JinjaToken::Op(found)) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(JinjaToken::Name(found)) if found == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { self.fail(&format!("{op:?}")) }
    }

    fn expect_name(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) { Ok(()) } else { self.fail(&format!("{name:?}")) }
    }

    fn expect_end(&mut self) -> Result<()> {
        if self.peek() != Some(&JinjaToken::BlockEnd) {
            return self.fail("the end of the tag");
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self) -> Result<Arc<str>> {
        let Some(JinjaToken::Name(name)) = self.peek() else { return self.fail("a name") };
        let name = Arc::from(name.as_str());
        self.at += 1;
        Ok(name)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            bail!("line {}: more than {DEEPEST} brackets or blocks within each other", self.line());
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// One more operator in a row.
    fn longer(&self, length: &mut usize) -> Result<()> {
        *length += 1;
        if *length > LONGEST {
            bail!("line {}: more than {LONGEST} operators in a row", self.line());
        }
        Ok(())
    }

    /// Statements up to a tag with one of these names, which is left to be read; up to the end where there are none.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.deeper(|p| p.statements(ends))
    }

    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.peek() {
                None if ends.is_empty() => return Ok(body),
                None => return self.fail(&format!("{{% {} %}}", ends.join(" %} or {% "))),
                Some(JinjaToken::Data(text)) => {
                    let text = text.clone();
                    self.at += 1;
                    StmtKind::Data(text)
                }
                Some(JinjaToken::VariableBegin) => {
                    self.at += 1;
                    let value = self.tuple(true, &[])?;
                    if self.peek() != Some(&JinjaToken::VariableEnd) {
                        return self.fail("}}");
                    }
                    self.at += 1;
                    StmtKind::Output(value)
                }
                Some(JinjaToken::BlockBegin) => {
                    self.at += 1;
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    match self.statement()? {
                        Some(kind) => kind,
                        None => continue,
                    }
                }
                Some(_) => return self.fail("text or a tag"),
            };
            body.push(Stmt { line, kind });
        }
    }

    /// A body and the tag that ends it.
    fn block(&mut self, end: &str) -> Result<Vec<Stmt>> {
        self.expect_end()?;
        let body = self.body(&[end])?;
        self.at += 1;
        self.expect_end()?;
        Ok(body)
    }

    fn statement(&mut self) -> Result<Option<StmtKind>> {
        let keyword = self.name()?;
        Ok(Some(match &*keyword {
            "for" => self.loop_of()?,
            "if" => self.condition()?,
            "set" => self.set()?,
            "macro" => {
                let name = self.name()?;
                StmtKind::Macro(self.macro_of(name, "endmacro")?)
            }
            "call" => {
                let seen = self.names.len();
                let parameters = if self.is_op("(") { self.signature()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call, Expr::Call(..)) {
                    return self.fail("a call");
                }
                let body = self.block("endcall")?;
                let takes = self.takes(seen);
                StmtKind::Call(call, Arc::new(Macro { name: "caller".into(), parameters, body, takes }))
            }
            "filter" => {
                let filters = self.filters(true)?;
                StmtKind::Filter(filters, self.block("endfilter")?)
            }
            "with" => {
                let mut assigned = Vec::new();
                while self.peek() != Some(&JinjaToken::BlockEnd) {
                    if !assigned.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target(false)?;
                    self.expect_op("=")?;
                    assigned.push((target, self.expression()?));
                }
                StmtKind::With(assigned, self.block("endwith")?)
            }
            "generation" => StmtKind::Generation(self.block("endgeneration")?),
            "block" => {
                let name = self.name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                self.expect_end()?;
                let body = self.body(&["endblock"])?;
                self.at += 1;
                self.skip_name(&name);
                self.expect_end()?;
                StmtKind::With(Vec::new(), body)
            }
            "autoescape" => {
                if matches!(self.expression()?, Expr::Bool(true)) {
                    bail!("line {}: {{% autoescape true %}} is not supported", self.line());
                }
                StmtKind::With(Vec::new(), self.block("endautoescape")?)
            }
            "print" => {
                let value = self.tuple(true, &[])?;
                self.expect_end()?;
                StmtKind::Output(value)
            }
            "break" | "continue" => {
                self.expect_end()?;
                if &*keyword == "break" { StmtKind::Break } else { StmtKind::Continue }
            }
            "extends" | "include" | "import" | "from" => {
                bail!("line {}: {{% {keyword} %}}: a chat template cannot use other templates", self.line())
            }
            other => bail!("line {}: unknown tag {other:?}", self.line()),
        }))
    }

    fn loop_of(&mut self) -> Result<StmtKind> {
        let target = self.target(false)?;
        self.expect_name("in")?;
        let over = self.tuple(false, &["recursive"])?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.expect_end()?;
        let body = self.body(&["endfor", "else"])?;
        let otherwise = if self.skip_name("else") {
            self.expect_end()?;
            self.body(&["endfor"])?
        } else {
            Vec::new()
        };
        self.expect_name("endfor")?;
        self.expect_end()?;
        Ok(StmtKind::For(Arc::new(For { target, over, condition, recursive, body, otherwise })))
    }

    fn condition(&mut self) -> Result<StmtKind> {
        let mut cases = Vec::new();
        loop {
            let test = self.tuple(false, &[])?;
            self.expect_end()?;
            cases.push((test, self.body(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") {
                self.expect_end()?;
                self.body(&["endif"])?
            } else {
                Vec::new()
            };
            self.expect_name("endif")?;
            self.expect_end()?;
            return Ok(StmtKind::If(cases, otherwise));
        }
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            let value = self.tuple(true, &[])?;
            self.expect_end()?;
            return Ok(StmtKind::Set(target, value));
        }
        let filters = self.filters(false)?;
        Ok(StmtKind::SetBlock(target, filters, self.block("endset")?))
    }

    fn macro_of(&mut self, name: Arc<str>, end: &str) -> Result<Arc<Macro>> {
        let parameters = self.signature()?;
        let seen = self.names.len();
        let body = self.block(end)?;
        Ok(Arc::new(Macro { name, parameters, body, takes: self.takes(seen) }))
    }

    /// Which of the arguments without a name the names from there on use.
    fn takes(&self, seen: usize) -> [bool; 3] {
        ["varargs", "kwargs", "caller"].map(|name| self.names[seen..].iter().any(|found| &**found == name))
    }

    fn signature(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        while !self.skip_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, d)| d.is_some()) {
                return self.fail("a default, as the parameter before has one");
            }
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    /// Names to assign to, separated by commas.
    fn target(&mut self, with_attributes: bool) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if is_tuple && !matches!(self.peek(), Some(JinjaToken::Name(_)) | Some(JinjaToken::Op("(")))
                || self.is_name("in")
            {
                break;
            }
            targets.push(self.one_target(with_attributes)?);
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match (targets.len(), is_tuple) {
            (0, _) => self.fail("a name to assign to"),
            (1, false) => Ok(targets.remove(0)),
            _ => Ok(Target::Tuple(targets)),
        }
    }

    fn one_target(&mut self, with_attributes: bool) -> Result<Target> {
        if self.skip_op("(") {
            let target = self.deeper(|p| p.target(with_attributes))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if RESERVED.contains(&&*name) {
            bail!("line {}: {name} cannot be assigned to", self.line());
        }
        if with_attributes && self.skip_op(".") {
            return Ok(Target::Attr(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    /// Expressions separated by commas: a tuple, or one expression alone.
    fn tuple(&mut self, with_condition: bool, ends: &[&str]) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = match self.peek() {
                None | Some(JinjaToken::BlockEnd | JinjaToken::VariableEnd | JinjaToken::Op(")")) => true,
                Some(JinjaToken::Name(name)) => ends.contains(&name.as_str()),
                _ => false,
            };
            if at_end {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.deeper(Self::or)? });
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match (items.len(), is_tuple) {
            (0, _) => self.fail("an expression"),
            (1, false) => Ok(items.remove(0)),
            _ => Ok(Expr::Tuple(items)),
        }
    }

    fn expression(&mut self) -> Result<Expr> {
        self.deeper(|p| {
            let mut value = p.or()?;
            let mut length = 0;
            while p.skip_name("if") {
                p.longer(&mut length)?;
                let test = p.or()?;
                let otherwise = if p.skip_name("else") { Some(Box::new(p.expression()?)) } else { None };
                value = Expr::If(Box::new(test), Box::new(value), otherwise);
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        let mut length = 0;
        while self.skip_name("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
            self.longer(&mut length)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        let mut length = 0;
        while self.skip_name("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
            self.longer(&mut length)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.deeper(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut more = Vec::new();
        loop {
            let comparison = match self.peek() {
                Some(JinjaToken::Op("==")) => CompareOp::Equal,
                Some(JinjaToken::Op("!=")) => CompareOp::NotEqual,
                Some(JinjaToken::Op("<")) => CompareOp::Less,
                Some(JinjaToken::Op("<=")) => CompareOp::LessOrEqual,
                Some(JinjaToken::Op(">")) => CompareOp::Greater,
                Some(JinjaToken::Op(">=")) => CompareOp::GreaterOrEqual,
                Some(JinjaToken::Name(name)) if name == "in" => CompareOp::In,
                Some(JinjaToken::Name(name)) if name == "not" => {
                    let next = self.tokens.get(self.at + 1);
                    if !matches!(next, Some((JinjaToken::Name(name), _)) if name == "in") {
                        break;
                    }
                    self.at += 1;
                    CompareOp::NotIn
                }
                _ => break,
            };
            self.at += 1;
            more.push((comparison, self.sum()?));
        }
        Ok(if more.is_empty() { first } else { Expr::Compare(Box::new(first), more) })
    }

    fn binary(
        &mut self,
        operators: &[(&str, Binary)],
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let mut length = 0;
        while let Some((_, operator)) = operators.iter().find(|(op, _)| self.is_op(op)) {
            self.at += 1;
            left = Expr::Binary(*operator, Box::new(left), Box::new(operand(self)?));
            self.longer(&mut length)?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", Binary::Add), ("-", Binary::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let mut parts = vec![self.product()?];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Concat(parts) })
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [
            ("*", Binary::Multiply),
            ("/", Binary::Divide),
            ("//", Binary::FloorDivide),
            ("%", Binary::Remainder),
        ];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.binary(&[("**", Binary::Power)], |p| p.unary(true))
    }

    fn unary(&mut self, with_filter: bool) -> Result<Expr> {
        let value = if self.skip_op("-") {
            Expr::Negative(Box::new(self.deeper(|p| p.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Positive(Box::new(self.deeper(|p| p.unary(false))?))
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if with_filter { self.filtered(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expr> {
        let Some(token) = self.peek().cloned() else { return self.fail("an expression") };
        self.at += 1;
        Ok(match token {
            JinjaToken::Name(name) => match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => {
                    let name: Arc<str> = name.into();
                    self.names.push(name.clone());
                    Expr::Name(name)
                }
            },
            JinjaToken::Str(mut text) => {
                while let Some(JinjaToken::Str(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Expr::Str(text.into())
            }
            JinjaToken::Int(number) => Expr::Int(number),
            JinjaToken::Float(number) => Expr::Float(number),
            JinjaToken::Op("(") => {
                if self.skip_op(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let value = self.deeper(|p| p.tuple(true, &[]))?;
                self.expect_op(")")?;
                value
            }
            JinjaToken::Op("[") => Expr::List(self.items("]", Self::expression)?),
            JinjaToken::Op("{") => Expr::Dict(self.items("}", |p| {
                let key = p.expression()?;
                p.expect_op(":")?;
                Ok((key, p.expression()?))
            })?),
            _ => {
                self.at -= 1;
                return self.fail("an expression");
            }
        })
    }

    /// What stands between brackets, separated by commas; one may follow the last.
    fn items<T>(&mut self, close: &str, item: fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_op(close) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        let mut length = 0;
        loop {
            value = if self.skip_op(".") {
                match self.peek() {
                    Some(JinjaToken::Int(at)) => {
                        let at = *at;
                        self.at += 1;
                        Expr::Item(Box::new(value), Box::new(Expr::Int(at)))
                    }
                    _ => Expr::Attr(Box::new(value), self.name()?),
                }
            } else if self.skip_op("[") {
                self.subscript(value)?
            } else if self.is_op("(") {
                Expr::Call(Box::new(value), self.arguments()?)
            } else {
                return Ok(value);
            };
            self.longer(&mut length)?;
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let start = if self.is_op(":") { None } else { Some(self.expression()?) };
        if !self.skip_op(":") {
            let Some(mut key) = start else { return self.fail("a key") };
            if self.is_op(",") {
                let mut keys = vec![key];
                while self.skip_op(",") {
                    keys.push(self.expression()?);
                }
                key = Expr::Tuple(keys);
            }
            self.expect_op("]")?;
            return Ok(Expr::Item(Box::new(value), Box::new(key)));
        }
        let bound = |p: &mut Self| -> Result<Option<Expr>> {
            if p.is_op(":") || p.is_op("]") { Ok(None) } else { p.expression().map(Some) }
        };
        let stop = bound(self)?;
        let step = if self.skip_op(":") { bound(self)? } else { None };
        self.expect_op("]")?;
        Ok(Expr::Slice(Box::new(value), Box::new([start, stop, step])))
    }

    /// Filters, tests and calls behind a value.
    fn filtered(&mut self, mut value: Expr) -> Result<Expr> {
        let mut length = 0;
        loop {
            self.longer(&mut length)?;
            value = if self.skip_op("|") {
                let filter = self.filter_name()?;
                Expr::Filter(Box::new(value), filter)
            } else if self.skip_name("is") {
                self.test(value)?
            } else if self.is_op("(") {
                Expr::Call(Box::new(value), self.arguments()?)
            } else {
                return Ok(value);
            };
        }
    }

    /// The filters of a block, the first with or without its `|`.
    fn filters(&mut self, begins: bool) -> Result<Vec<FilterCall>> {
        let mut filters = Vec::new();
        while (begins && filters.is_empty()) || self.skip_op("|") {
            filters.push(self.filter_name()?);
        }
        Ok(filters)
    }

    fn dotted(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?.to_string();
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name.into())
    }

    fn filter_name(&mut self) -> Result<FilterCall> {
        let name = self.dotted()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(FilterCall { name, arguments })
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let takes_one = match self.peek() {
            Some(JinjaToken::Name(word)) => !["else", "or", "and", "is"].contains(&word.as_str()),
            Some(
                JinjaToken::Str(_) | JinjaToken::Int(_) | JinjaToken::Float(_) | JinjaToken::Op("[" | "{"),
            ) => true,
            _ => false,
        };
        let arguments = if self.is_op("(") {
            self.arguments()?
        } else if takes_one && !self.is_name("if") && !self.is_name("not") && !self.is_name("in") {
            let one = self.primary()?;
            Arguments { positional: vec![self.postfix(one)?], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Expr::Test(Box::new(value), FilterCall { name, arguments });
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut is_first = true;
        while !self.skip_op(")") {
            if !is_first {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            is_first = false;
            if self.skip_op("*") {
                arguments.list = Some(Box::new(self.expression()?));
            } else if self.skip_op("**") {
                arguments.dict = Some(Box::new(self.expression()?));
            } else if let (Some(JinjaToken::Name(name)), Some((JinjaToken::Op("="), _))) =
                (self.peek(), self.tokens.get(self.at + 1))
            {
                let name: Arc<str> = name.as_str().into();
                self.at += 2;
                let value = self.expression()?;
                arguments.named.push((name, value));
            } else {
                if !arguments.named.is_empty() {
                    return self.fail("a name, as the argument before has one");
                }
                let value = self.expression()?;
                arguments.positional.push(value);
            }
        }
        Ok(arguments)
    }
}
