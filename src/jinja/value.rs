//! The values of templates: Python's, as far as a template meets them.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use indexmap::IndexMap;

use super::ast::{For, Macro};
use super::text::{float, repr};

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// What is undefined, for messages.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<str>),
    /// Text that `safe` or `escape` made: what is added to it is escaped.
    Markup(Rc<str>),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Vec<Value>>),
    Dict(Rc<Dict>),
    /// Start, stop and step.
    Range(i64, i64, i64),
    /// `dict_keys`, `dict_values` or `dict_items`.
    View(&'static str, Rc<Vec<Value>>),
    /// What `map`, `select` and their like give: read once, and true whatever it holds.
    Generator(Rc<RefCell<VecDeque<Value>>>),
    Namespace(Rc<RefCell<Dict>>),
    Loop(Rc<LoopState>),
    /// A method of a value.
    Method(Rc<(Value, Rc<str>)>),
    /// A function that every template has.
    Function(&'static str),
    Macro(Arc<Macro>, usize),
    /// Items and the next one.
    Cycler(Rc<(Vec<Value>, Cell<usize>)>),
    /// The separator, and whether it was used before.
    Joiner(Rc<(Value, Cell<bool>)>),
}

/// A dictionary in the order of its insertions.
pub(super) type Dict = IndexMap<Key, Value>;

/// A key of a dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Str(Rc<str>),
    Int(i128),
    Bool(bool),
    None,
}

/// The `loop` of a loop.
#[derive(Debug)]
pub(super) struct LoopState {
    pub items: Vec<Value>,
    pub at: Cell<usize>,
    pub depth: usize,
    /// What `loop.changed` saw last.
    pub seen: RefCell<Option<Vec<Value>>>,
    /// The loop and its scope, where it may be called again.
    pub again: Option<(Arc<For>, usize)>,
}

impl Key {
    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Key::Str(text) => Value::Str(text.clone()),
            Key::Int(number) => Value::Int(*number),
            Key::Bool(is) => Value::Bool(*is),
            Key::None => Value::None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Str(text.into())
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::None,
            Json::Bool(is) => Value::Bool(*is),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number.into()),
                (_, Some(number)) => Value::Int(number.into()),
                _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => text.as_str().into(),
            Json::Array(items) => Value::list(items.iter().map(Value::from).collect()),
            Json::Object(fields) => Value::Dict(Rc::new(
                fields.iter().map(|(key, value)| (Key::Str(key.as_str().into()), value.into())).collect(),
            )),
        }
    }
}

impl Value {
    /// A list.
    pub fn list(items: Vec<Value>) -> Self {
        Value::List(Rc::new(items))
    }

    /// A tuple.
    pub fn tuple(items: Vec<Value>) -> Self {
        Value::Tuple(Rc::new(items))
    }

    /// What a filter gives that Python evaluates as it is read.
    pub fn generator(items: Vec<Value>) -> Self {
        Value::Generator(Rc::new(RefCell::new(items.into())))
    }

    /// Something undefined.
    pub fn undefined(what: impl AsRef<str>) -> Self {
        Value::Undefined(what.as_ref().into())
    }

    /// Its type, as Python names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(..) => "range",
            Value::View(name, _) => name,
            Value::Generator(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Method(_) | Value::Function(_) => "function",
            Value::Macro(..) => "Macro",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
        }
    }

    /// Python's truth.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(is) => *is,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => !items.is_empty(),
            Value::Dict(fields) => !fields.is_empty(),
            Value::Range(..) => self.len().is_ok_and(|n| n > 0),
            _ => true,
        }
    }

    /// Python's `len`.
    ///
    /// # Errors
    /// If it has none.
    pub fn len(&self) -> Result<usize> {
        Ok(match self {
            Value::Undefined(_) => 0,
            Value::Str(text) => text.chars().count(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.len(),
            Value::Dict(fields) => fields.len(),
            Value::Range(start, stop, step) => range_len(*start, *stop, *step),
            Value::Loop(state) => state.items.len(),
            _ => bail!("object of type '{}' has no len()", self.kind()),
        })
    }

    /// Its items, as a loop meets them; a generator is empty afterwards.
    ///
    /// # Errors
    /// If it has none.
    pub fn items(&self) -> Result<Vec<Value>> {
        Ok(match self {
            Value::Undefined(_) => Vec::new(),
            Value::Str(text) => text.chars().map(|c| Value::from(&*c.encode_utf8(&mut [0; 4]))).collect(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.to_vec(),
            Value::Dict(fields) => fields.keys().map(Key::value).collect(),
            Value::Range(start, stop, step) => (0..range_len(*start, *stop, *step))
                .map(|i| Value::Int((*start + *step * i as i64).into()))
                .collect(),
            Value::Generator(items) => items.borrow_mut().drain(..).collect(),
            _ => bail!("'{}' object is not iterable", self.kind()),
        })
    }

    /// The key of a dictionary that it is.
    ///
    /// # Errors
    /// If Python cannot hash it, or hashes a kind that no template uses as a key.
    pub fn key(&self) -> Result<Key> {
        Ok(match self {
            Value::Str(text) => Key::Str(text.clone()),
            Value::Int(number) => Key::Int(*number),
            Value::Bool(is) => Key::Bool(*is),
            Value::None => Key::None,
            _ => bail!("a '{}' is no key of a dict", self.kind()),
        })
    }

    /// The integer that it is.
    ///
    /// # Errors
    /// If it is none.
    pub fn int(&self) -> Result<i128> {
        match self {
            Value::Int(number) => Ok(*number),
            Value::Bool(is) => Ok((*is).into()),
            Value::Undefined(what) => Err(undefined(what)),
            _ => bail!("'{}' object cannot be interpreted as an integer", self.kind()),
        }
    }

    /// The number that it is, as Python's arithmetic takes it.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Bool(is) => Some(f64::from(u8::from(*is))),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// Python's `str`.
    pub fn text(&self) -> Rc<str> {
        match self {
            Value::Str(text) | Value::Markup(text) => text.clone(),
            Value::Undefined(_) => "".into(),
            _ => self.repr().into(),
        }
    }

    /// The value as all but additions take it: markup is a text.
    pub fn plain(self) -> Self {
        match self {
            Value::Markup(text) => Value::Str(text),
            other => other,
        }
    }

    /// Python's `repr`.
    pub fn repr(&self) -> String {
        let of = |items: &[Value]| items.iter().map(Value::repr).collect::<Vec<_>>().join(", ");
        let dict = |fields: &Dict| {
            let field = |(key, value): (&Key, &Value)| format!("{}: {}", key.value().repr(), value.repr());
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        };
        match self {
            Value::Undefined(_) => "Undefined".into(),
            Value::None => "None".into(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => float(*number),
            Value::Str(text) => repr(text),
            Value::Markup(text) => format!("Markup({})", repr(text)),
            Value::List(items) => format!("[{}]", of(items)),
            Value::Tuple(items) if items.len() == 1 => format!("({},)", of(items)),
            Value::Tuple(items) => format!("({})", of(items)),
            Value::Dict(fields) => dict(fields),
            Value::Range(start, stop, 1) => format!("range({start}, {stop})"),
            Value::Range(start, stop, step) => format!("range({start}, {stop}, {step})"),
            Value::View(name, items) => format!("{name}([{}])", of(items)),
            Value::Namespace(fields) => format!("<Namespace {}>", dict(&fields.borrow())),
            Value::Macro(of, _) => format!("<Macro {}>", repr(&of.name)),
            other => format!("<{}>", other.kind()),
        }
    }

    /// Python's `==`.
    pub fn equals(&self, other: &Value) -> bool {
        let all = |a: &[Value], b: &[Value]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b));
        match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => all(a, b),
            (Value::Dict(a), Value::Dict(b)) => {
                a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|b| value.equals(b)))
            }
            (Value::Range(..), Value::Range(..)) | (Value::View(..), Value::View(..)) => {
                matches!((self.items(), other.items()), (Ok(a), Ok(b)) if all(&a, &b))
            }
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Macro(a, _), Value::Macro(b, _)) => Arc::ptr_eq(a, b),
            (Value::Function(a), Value::Function(b)) => a == b,
            _ => matches!((self.number(), other.number()), (Some(a), Some(b)) if a == b),
        }
    }

    /// Python's order.
    ///
    /// # Errors
    /// If Python has none of these two.
    pub fn compare(&self, other: &Value) -> Result<Option<Ordering>> {
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => Ok(Some(a.cmp(b))),
            (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (Value::Undefined(what), _) | (_, Value::Undefined(what)) => Err(undefined(what)),
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                _ => Err(anyhow!(
                    "'<' not supported between instances of '{}' and '{}'",
                    self.kind(),
                    other.kind()
                )),
            },
        }
    }

    /// Python's `in`.
    ///
    /// # Errors
    /// If it holds nothing at all.
    pub fn contains(&self, item: &Value) -> Result<bool> {
        match (self, item) {
            (Value::Str(text), Value::Str(part)) => Ok(text.contains(&**part)),
            (Value::Str(_), Value::Undefined(what)) => Err(undefined(what)),
            (Value::Str(_), _) => {
                bail!("'in <string>' requires string as left operand, not {}", item.kind())
            }
            (Value::Dict(fields), _) => Ok(item.key().is_ok_and(|key| fields.contains_key(&key))),
            (Value::Undefined(_), _) => Ok(false),
            _ => match self.items() {
                Ok(items) => Ok(items.iter().any(|found| found.equals(item))),
                Err(_) => bail!("argument of type '{}' is not iterable", self.kind()),
            },
        }
    }
}

/// That something undefined was used.
pub(super) fn undefined(what: &str) -> anyhow::Error {
    anyhow!("{what}")
}

/// Numbers of a range.
fn range_len(start: i64, stop: i64, step: i64) -> usize {
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = if step > 0 { stop - start } else { start - stop };
    let step = step.abs().max(1);
    usize::try_from((span + step - 1).max(0) / step).unwrap_or(usize::MAX)
}
