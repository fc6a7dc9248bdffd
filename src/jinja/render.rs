//! The rendering of a template: its tree walked with Python's rules.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};

use super::access;
use super::ast::{Arguments, Binary, CompareOp, Expr, FilterCall, For, Macro, Stmt, StmtKind, Target};
use super::budget::{Level, made, nested, worked};
use super::filters::{self, add};
use super::formatting::percent;
use super::functions;
use super::given::Given;
use super::methods;
use super::predicates;
use super::value::{Dict, DictKey, JinjaValue, LoopState, holds, undefined};

/// Macros and recursive loops within each other: deeper ones would exhaust the stack.
const DEEPEST: usize = 40;
/// Statements and expressions of one rendering: more is a template that would not end.
const MOST_STEPS: usize = 10_000_000;
/// Bytes that a scope takes.
const SCOPE: usize = 128;
/// Bytes of one text that a template makes.
const LONGEST: usize = 256 << 20;

/// What was rendered.
#[derive(Debug, Default)]
pub struct Rendering {
    /// The text.
    pub text: String,
    /// Where `{% generation %}` blocks put theirs, in bytes.
    pub generated: Vec<Range<usize>>,
}

/// A fault and the line of the template where it is.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the template: {message}")]
struct LineFault {
    line: usize,
    message: String,
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Normal,
    Break,
    Continue,
}

struct Scope {
    names: HashMap<Arc<str>, JinjaValue>,
    parent: Option<usize>,
    /// Whether a macro may come back to it.
    kept: bool,
}

pub(super) struct Renderer {
    scopes: Vec<Scope>,
    out: String,
    /// Bytes of the text proper while a macro or a block collects its own.
    written: usize,
    collecting: usize,
    generated: Vec<Range<usize>>,
    depth: usize,
    steps: usize,
}

impl Renderer {
    /// Renders with these variables.
    ///
    /// # Errors
    /// What the template raises, and faults of the template, with the line.
    pub fn render(
        body: &[Stmt],
        variables: impl IntoIterator<Item = (Arc<str>, JinjaValue)>,
    ) -> Result<Rendering> {
        let mut names: HashMap<Arc<str>, JinjaValue> = variables.into_iter().collect();
        // The template itself; its blocks are not to be had by name.
        names.insert("self".into(), JinjaValue::Namespace(Rc::default()));
        let root = Scope { names, parent: None, kept: true };
        let mut renderer = Self {
            scopes: vec![root],
            out: String::new(),
            written: 0,
            collecting: 0,
            generated: Vec::new(),
            depth: 0,
            steps: 0,
        };
        renderer.run(body, 0)?;
        Ok(Rendering { text: renderer.out, generated: renderer.generated })
    }

    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        worked(32);
        if self.steps > MOST_STEPS {
            bail!("the template did not end after {MOST_STEPS} steps");
        }
        if self.out.len() > LONGEST {
            bail!("the template writes more than {LONGEST} bytes");
        }
        Ok(())
    }

    fn write(&mut self, text: &str) {
        made(text.len());
        self.out.push_str(text);
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            bail!("more than {DEEPEST} macros or loops that call each other");
        }
        let ran = run(self);
        self.depth -= 1;
        ran
    }

    /// Runs in a scope of its own below another.
    fn scoped<T>(&mut self, parent: usize, run: impl FnOnce(&mut Self, usize) -> Result<T>) -> Result<T> {
        made(SCOPE);
        self.scopes.push(Scope { names: HashMap::new(), parent: Some(parent), kept: false });
        let scope = self.scopes.len() - 1;
        let ran = run(self, scope);
        // A scope that no macro was made in is the last one again.
        if self.scopes.len() - 1 == scope && !self.scopes[scope].kept {
            self.scopes.pop();
        }
        ran
    }

    /// What a body writes, for itself.
    fn collected(&mut self, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<String> {
        let before = std::mem::take(&mut self.out);
        if self.collecting == 0 {
            self.written = before.len();
        }
        self.collecting += 1;
        let ran = run(self);
        self.collecting -= 1;
        let text = std::mem::replace(&mut self.out, before);
        ran.map(|()| text)
    }

    fn lookup(&self, name: &str, scope: usize) -> JinjaValue {
        let mut at = Some(scope);
        while let Some(scope) = at {
            if let Some(found) = self.scopes[scope].names.get(name) {
                return found.clone();
            }
            at = self.scopes[scope].parent;
        }
        functions::find(name).unwrap_or_else(|| JinjaValue::undefined(format!("'{name}' is undefined")))
    }

    fn set(&mut self, target: &Target, value: JinjaValue, scope: usize) -> Result<()> {
        match target {
            Target::Name(name) => {
                worked(SCOPE);
                self.scopes[scope].names.insert(name.clone(), value);
            }
            Target::Attr(of, name) => match self.lookup(of, scope) {
                JinjaValue::Namespace(fields) => {
                    made(SCOPE);
                    if value.is_container() {
                        nested();
                    }
                    fields.borrow_mut().insert(DictKey::Str((&**name).into()), value);
                }
                other => bail!("cannot assign attribute on a {}; expected a namespace", other.kind()),
            },
            Target::Tuple(targets) => {
                let items = value.items()?;
                if items.len() != targets.len() {
                    bail!("{} values to unpack; expected {}", items.len(), targets.len());
                }
                for (target, item) in targets.iter().zip(items) {
                    self.set(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, body: &[Stmt], scope: usize) -> Result<Flow> {
        for statement in body {
            let flow = self.statement(&statement.kind, scope).map_err(|e| match e.is::<LineFault>() {
                true => e,
                false => LineFault { line: statement.line, message: format!("{e:#}") }.into(),
            })?;
            if flow != Flow::Normal {
                return Ok(flow);
            }
        }
        Ok(Flow::Normal)
    }

    fn statement(&mut self, kind: &StmtKind, scope: usize) -> Result<Flow> {
        let _level = Level::enter();
        self.step()?;
        match kind {
            StmtKind::Data(text) => self.write(text),
            StmtKind::Output(value) => {
                let value = self.eval(value, scope)?;
                self.write(&value.text());
            }
            StmtKind::If(cases, otherwise) => {
                for (test, body) in cases {
                    if self.eval(test, scope)?.is_true() {
                        return self.run(body, scope);
                    }
                }
                return self.run(otherwise, scope);
            }
            StmtKind::For(of) => {
                let items = self.eval(&of.over, scope)?.items()?;
                self.for_each(of, items, scope, 1)?;
            }
            StmtKind::Set(target, value) => {
                let value = self.eval(value, scope)?;
                self.set(target, value, scope)?;
            }
            StmtKind::SetBlock(target, filters, body) => {
                let text = self.block(body, filters, scope)?;
                self.set(target, text, scope)?;
            }
            StmtKind::Filter(filters, body) => {
                let text = self.block(body, filters, scope)?;
                self.write(&text.text());
            }
            StmtKind::Macro(of) => {
                self.scopes[scope].kept = true;
                self.scopes[scope].names.insert(of.name.clone(), JinjaValue::Macro(of.clone(), scope));
            }
            StmtKind::Call(call, caller) => {
                let Expr::Call(callee, arguments) = call else { bail!("a call block needs a call") };
                self.scopes[scope].kept = true;
                let callee = self.eval(callee, scope)?;
                let mut given = self.given(arguments, scope)?;
                given.named.push(("caller".into(), JinjaValue::Macro(caller.clone(), scope)));
                let value = self.call(callee, given)?;
                self.write(&value.text());
            }
            StmtKind::With(assigned, body) => {
                let mut values = Vec::new();
                for (_, value) in assigned {
                    values.push(self.eval(value, scope)?);
                }
                return self.scoped(scope, |r, inner| {
                    for ((target, _), value) in assigned.iter().zip(values) {
                        r.set(target, value, inner)?;
                    }
                    r.run(body, inner)
                });
            }
            StmtKind::Generation(body) => {
                let begin = if self.collecting == 0 { self.out.len() } else { self.written };
                let text = self.collected(|r| r.scoped(scope, |r, inner| r.run(body, inner).map(|_| ())))?;
                self.write(&text);
                self.generated.push(begin..begin + text.len());
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Normal)
    }

    /// What a block writes, through its filters.
    fn block(&mut self, body: &[Stmt], filters: &[FilterCall], scope: usize) -> Result<JinjaValue> {
        let text = self.collected(|r| r.scoped(scope, |r, inner| r.run(body, inner).map(|_| ())))?;
        let mut value = JinjaValue::from(text);
        for filter in filters {
            let given = self.given(&filter.arguments, scope)?;
            value = filters::apply(&filter.name, &value, given)?;
        }
        Ok(value)
    }

    fn for_each(&mut self, of: &Arc<For>, items: Vec<JinjaValue>, scope: usize, depth: usize) -> Result<()> {
        let mut kept = Vec::with_capacity(items.len());
        match &of.condition {
            None => kept = items,
            Some(condition) => {
                for item in items {
                    self.step()?;
                    let passes = self.scoped(scope, |r, inner| {
                        r.set(&of.target, item.clone(), inner)?;
                        Ok(r.eval(condition, inner)?.is_true())
                    })?;
                    if passes {
                        kept.push(item);
                    }
                }
            }
        }
        if kept.is_empty() {
            return self.scoped(scope, |r, inner| r.run(&of.otherwise, inner).map(|_| ()));
        }
        if kept.iter().any(JinjaValue::is_container) {
            nested();
        }
        let again = of.recursive.then(|| (of.clone(), scope));
        let state =
            Rc::new(LoopState { items: kept, at: Cell::new(0), depth, seen: RefCell::new(None), again });
        for (at, item) in state.items.iter().enumerate() {
            self.step()?;
            state.at.set(at);
            let flow = self.scoped(scope, |r, inner| {
                r.scopes[inner].names.insert("loop".into(), JinjaValue::Loop(state.clone()));
                r.set(&of.target, item.clone(), inner)?;
                r.run(&of.body, inner)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn given(&mut self, arguments: &Arguments, scope: usize) -> Result<Given> {
        let mut given = Given::default();
        for value in &arguments.positional {
            given.positional.push(self.plain(value, scope)?);
        }
        for (name, value) in &arguments.named {
            given.named.push(((&**name).into(), self.plain(value, scope)?));
        }
        if let Some(list) = &arguments.list {
            given.positional.extend(self.eval(list, scope)?.items()?);
        }
        if let Some(dict) = &arguments.dict {
            match self.eval(dict, scope)? {
                JinjaValue::Dict(fields) => {
                    for (key, value) in fields.iter() {
                        given.named.push((key.value().text(), value.clone()));
                    }
                }
                other => bail!("argument after ** must be a mapping, not {}", other.kind()),
            }
        }
        Ok(given)
    }

    fn call(&mut self, callee: JinjaValue, given: Given) -> Result<JinjaValue> {
        self.step()?;
        match callee {
            JinjaValue::Method(method) => methods::call(&method.0, &method.1, given),
            JinjaValue::Function(name) => functions::call(name, given),
            JinjaValue::Macro(of, scope) => self.deeper(|r| r.call_macro(&of, scope, given)),
            JinjaValue::Joiner(joiner) => {
                let used = joiner.1.replace(true);
                Ok(if used { joiner.0.clone() } else { "".into() })
            }
            JinjaValue::Loop(state) => {
                let Some((of, scope)) = state.again.clone() else {
                    bail!("the loop is not recursive; expected {{% for ... recursive %}}")
                };
                let [over] = given.bind("loop", ["iterable"], 1)?;
                let items = over.unwrap_or(JinjaValue::None).items()?;
                let text =
                    self.deeper(|r| r.collected(|r| r.for_each(&of, items, scope, state.depth + 1)))?;
                Ok(text.into())
            }
            JinjaValue::Undefined(what) => Err(undefined(&what)),
            other => bail!("'{}' object is not callable", other.kind()),
        }
    }

    fn call_macro(&mut self, of: &Arc<Macro>, scope: usize, given: Given) -> Result<JinjaValue> {
        let [takes_more, takes_named, takes_caller] = of.takes;
        let mut positional = given.positional.into_iter();
        let mut named = given.named;
        let mut arguments = Vec::new();
        for (name, default) in &of.parameters {
            let at = named.iter().position(|(n, _)| **n == **name);
            let found = match (positional.next(), at) {
                (Some(_), Some(_)) => bail!("macro '{}' got multiple values for argument '{name}'", of.name),
                (Some(value), None) => Some(value),
                (None, Some(at)) => Some(named.remove(at).1),
                (None, None) => None,
            };
            arguments.push((name.clone(), found, default));
        }
        let caller = named.iter().position(|(name, _)| &**name == "caller").map(|at| named.remove(at).1);
        let more: Vec<JinjaValue> = positional.collect();
        if !more.is_empty() && !takes_more {
            bail!("macro '{}' takes not more than {} argument(s)", of.name, of.parameters.len());
        }
        if let (Some((name, _)), false) = (named.first(), takes_named) {
            bail!("macro '{}' takes no keyword argument '{name}'", of.name);
        }
        if caller.is_some() && !takes_caller {
            bail!(
                "macro '{}' was invoked with two values for the special caller argument, or uses no caller",
                of.name
            );
        }
        let text = self.collected(|r| {
            r.scoped(scope, |r, inner| {
                let names = &mut r.scopes[inner].names;
                if takes_more {
                    names.insert("varargs".into(), JinjaValue::tuple(more));
                }
                if takes_named {
                    let fields = named.into_iter().map(|(name, value)| (DictKey::Str(name), value));
                    names.insert("kwargs".into(), JinjaValue::Dict(Rc::new(fields.collect::<Dict>())));
                }
                if takes_caller && !of.parameters.iter().any(|(name, _)| &**name == "caller") {
                    let none = || JinjaValue::undefined("No caller defined");
                    names.insert("caller".into(), caller.unwrap_or_else(none));
                }
                for (name, found, default) in arguments {
                    let value = match (found, default) {
                        (Some(value), _) => value,
                        (None, Some(default)) => r.eval(default, inner)?,
                        (None, None) => JinjaValue::undefined(format!("parameter '{name}' was not provided")),
                    };
                    r.scopes[inner].names.insert(name, value);
                }
                r.run(&of.body, inner).map(|_| ())
            })
        })?;
        Ok(text.into())
    }

    /// A value whose text may be markup no more: what everything but additions and outputs takes.
    fn plain(&mut self, expr: &Expr, scope: usize) -> Result<JinjaValue> {
        Ok(self.eval(expr, scope)?.plain())
    }

    fn eval(&mut self, expr: &Expr, scope: usize) -> Result<JinjaValue> {
        let _level = Level::enter();
        self.step()?;
        Ok(match expr {
            Expr::None => JinjaValue::None,
            Expr::Bool(is) => JinjaValue::Bool(*is),
            Expr::Int(number) => JinjaValue::Int(*number),
            Expr::Float(number) => JinjaValue::Float(*number),
            Expr::Str(text) => JinjaValue::from(&**text),
            Expr::Name(name) => self.lookup(name, scope),
            Expr::List(items) => JinjaValue::list(self.all(items, scope)?),
            Expr::Tuple(items) => JinjaValue::tuple(self.all(items, scope)?),
            Expr::Dict(fields) => {
                let mut dict = Dict::new();
                for (key, value) in fields {
                    let key = self.eval(key, scope)?.key()?;
                    dict.insert(key, self.eval(value, scope)?);
                }
                holds(dict.values());
                JinjaValue::Dict(Rc::new(dict))
            }
            Expr::Attr(of, name) => access::attribute(&self.plain(of, scope)?, name)?,
            Expr::Item(of, key) => {
                let of = self.plain(of, scope)?;
                access::item(&of, &self.plain(key, scope)?)?
            }
            Expr::Slice(of, bounds) => {
                let of = self.plain(of, scope)?;
                let mut values = [JinjaValue::None, JinjaValue::None, JinjaValue::None];
                for (value, bound) in values.iter_mut().zip(&**bounds) {
                    if let Some(bound) = bound {
                        *value = self.eval(bound, scope)?;
                    }
                }
                access::slice(&of, values)?
            }
            Expr::Call(callee, arguments) => {
                let callee = self.eval(callee, scope)?;
                let given = self.given(arguments, scope)?;
                self.call(callee, given)?
            }
            Expr::Filter(of, filter) => {
                let of = self.plain(of, scope)?;
                let given = self.given(&filter.arguments, scope)?;
                filters::apply(&filter.name, &of, given)?
            }
            Expr::Test(of, test) => {
                let of = self.plain(of, scope)?;
                let given = self.given(&test.arguments, scope)?;
                JinjaValue::Bool(predicates::test(&test.name, &of, given)?)
            }
            Expr::Not(of) => JinjaValue::Bool(!self.eval(of, scope)?.is_true()),
            Expr::Negative(of) => match self.eval(of, scope)? {
                JinjaValue::Float(number) => JinjaValue::Float(-number),
                other => match other.int()?.checked_neg() {
                    Some(number) => JinjaValue::Int(number),
                    None => bail!("too large a number"),
                },
            },
            Expr::Positive(of) => match self.eval(of, scope)? {
                JinjaValue::Float(number) => JinjaValue::Float(number),
                other => JinjaValue::Int(other.int()?),
            },
            Expr::And(a, b) => match self.eval(a, scope)? {
                a if a.is_true() => self.eval(b, scope)?,
                a => a,
            },
            Expr::Or(a, b) => match self.eval(a, scope)? {
                a if a.is_true() => a,
                _ => self.eval(b, scope)?,
            },
            Expr::If(test, then, otherwise) => match (self.eval(test, scope)?.is_true(), otherwise) {
                (true, _) => self.eval(then, scope)?,
                (false, Some(otherwise)) => self.eval(otherwise, scope)?,
                (false, None) => JinjaValue::undefined(
                    "the inline if-expression evaluated to false and no else section was defined.",
                ),
            },
            Expr::Concat(parts) => {
                // Python's text of each, markup or not, for nothing escapes by itself here.
                let parts = self.all(parts, scope)?;
                let parts: Vec<Rc<str>> = parts.iter().map(JinjaValue::text).collect();
                made(parts.iter().map(|part| part.len()).sum());
                parts.concat().into()
            }
            Expr::Compare(first, more) => {
                let mut left = self.plain(first, scope)?;
                for (comparison, right) in more {
                    let right = self.plain(right, scope)?;
                    if !compared(*comparison, &left, &right)? {
                        return Ok(JinjaValue::Bool(false));
                    }
                    left = right;
                }
                JinjaValue::Bool(true)
            }
            Expr::Binary(operator, a, b) => {
                let (a, b) = (self.eval(a, scope)?, self.eval(b, scope)?);
                match operator {
                    Binary::Add => add(&a, &b)?,
                    _ => binary(*operator, &a.plain(), &b.plain())?,
                }
            }
        })
    }

    fn all(&mut self, items: &[Expr], scope: usize) -> Result<Vec<JinjaValue>> {
        items.iter().map(|item| self.eval(item, scope)).collect()
    }
}

fn compared(comparison: CompareOp, a: &JinjaValue, b: &JinjaValue) -> Result<bool> {
    let ordered = |is: fn(Ordering) -> bool| a.compare(b).map(|order| order.is_some_and(is));
    match comparison {
        CompareOp::Equal => Ok(a.equals(b)),
        CompareOp::NotEqual => Ok(!a.equals(b)),
        CompareOp::Less => ordered(Ordering::is_lt),
        CompareOp::LessOrEqual => ordered(Ordering::is_le),
        CompareOp::Greater => ordered(Ordering::is_gt),
        CompareOp::GreaterOrEqual => ordered(Ordering::is_ge),
        CompareOp::In => b.contains(a),
        CompareOp::NotIn => Ok(!b.contains(a)?),
    }
}

/// Python's arithmetic.
fn binary(operator: Binary, a: &JinjaValue, b: &JinjaValue) -> Result<JinjaValue> {
    if let (JinjaValue::Undefined(what), _) | (_, JinjaValue::Undefined(what)) = (a, b) {
        return Err(undefined(what));
    }
    if let (Binary::Remainder, JinjaValue::Str(format)) = (operator, a) {
        return Ok(percent(format, b)?.into());
    }
    if operator == Binary::Multiply
        && let Some(repeated) = repeated(a, b)?
    {
        return Ok(repeated);
    }
    let unsupported =
        || anyhow!("unsupported operand type(s) for {operator:?}: '{}' and '{}'", a.kind(), b.kind());
    let (Some(x), Some(y)) = (a.number(), b.number()) else { return Err(unsupported()) };
    let is_zero = y == 0.0 && matches!(operator, Binary::Divide | Binary::FloorDivide | Binary::Remainder);
    if is_zero {
        bail!("division by zero");
    }
    if let (Ok(m), Ok(n)) = (a.int(), b.int()) {
        let whole = match operator {
            Binary::Subtract => m.checked_sub(n),
            Binary::Multiply => m.checked_mul(n),
            Binary::FloorDivide => {
                m.checked_div_euclid(n).map(|q| if n < 0 && m.rem_euclid(n) != 0 { q - 1 } else { q })
            }
            Binary::Remainder => {
                m.checked_rem(n).map(|r| if r != 0 && (r < 0) != (n < 0) { r + n } else { r })
            }
            Binary::Power if n >= 0 => u32::try_from(n).ok().and_then(|n| m.checked_pow(n)),
            _ => return Ok(JinjaValue::Float(if operator == Binary::Power { x.powf(y) } else { x / y })),
        };
        return whole.map(JinjaValue::Int).ok_or_else(|| anyhow!("too large a number"));
    }
    Ok(JinjaValue::Float(match operator {
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::Divide => x / y,
        Binary::FloorDivide => (x / y).floor(),
        Binary::Remainder => x - y * (x / y).floor(),
        _ => x.powf(y),
    }))
}

/// A text or a list times a number.
fn repeated(a: &JinjaValue, b: &JinjaValue) -> Result<Option<JinjaValue>> {
    let (of, times) = match (a, b) {
        (JinjaValue::Str(_) | JinjaValue::List(_) | JinjaValue::Tuple(_), _) => (a, b),
        (_, JinjaValue::Str(_) | JinjaValue::List(_) | JinjaValue::Tuple(_)) => (b, a),
        _ => return Ok(None),
    };
    let times = usize::try_from(times.int()?.max(0))?;
    let length = match of {
        JinjaValue::Str(text) => text.len(),
        _ => of.len()?.saturating_mul(64),
    };
    if length.saturating_mul(times) > LONGEST {
        bail!("a text or list of more than {LONGEST} bytes");
    }
    Ok(Some(match of {
        JinjaValue::Str(text) => text.repeat(times).into(),
        JinjaValue::List(items) => {
            JinjaValue::list(items.iter().cycle().take(items.len() * times).cloned().collect())
        }
        JinjaValue::Tuple(items) => {
            JinjaValue::tuple(items.iter().cycle().take(items.len() * times).cloned().collect())
        }
        _ => return Ok(None),
    }))
}
