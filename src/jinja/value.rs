//! The values of templates: Python's, as far as a template meets them.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use indexmap::IndexMap;

use super::ast::{For, Macro};
use super::budget::{Level, made, nested, worked};
use super::text::{float, repr};

/// A value.
#[derive(Debug, Clone)]
pub(super) enum JinjaValue {
    /// What is undefined, for messages.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<str>),
    /// Text that `safe` or `escape` made: what is added to it is escaped.
    Markup(Rc<str>),
    List(Rc<Vec<JinjaValue>>),
    Tuple(Rc<Vec<JinjaValue>>),
    Dict(Rc<Dict>),
    /// Start, stop and step.
    Range(i64, i64, i64),
    /// `dict_keys`, `dict_values` or `dict_items`.
    View(&'static str, Rc<Vec<JinjaValue>>),
    /// What `map`, `select` and their like give: read once, and true whatever it holds.
    Generator(Rc<RefCell<VecDeque<JinjaValue>>>),
    Namespace(Rc<RefCell<Dict>>),
    Loop(Rc<LoopState>),
    /// A method of a value.
    Method(Rc<(JinjaValue, Rc<str>)>),
    /// A function that every template has.
    Function(&'static str),
    Macro(Arc<Macro>, usize),
    /// Items and the next one.
    Cycler(Rc<(Vec<JinjaValue>, Cell<usize>)>),
    /// The separator, and whether it was used before.
    Joiner(Rc<(JinjaValue, Cell<bool>)>),
}

/// Bytes that a value takes beside its text.
const OVERHEAD: usize = 48;

/// Notes a value that holds these.
pub(super) fn holds<'a>(items: impl IntoIterator<Item = &'a JinjaValue>) {
    let (mut count, mut deep) = (1, false);
    for item in items {
        count += 1;
        deep |= item.is_container();
    }
    made(count * OVERHEAD);
    if deep {
        nested();
    }
}

/// A dictionary in the order of its insertions.
pub(super) type Dict = IndexMap<DictKey, JinjaValue>;

/// A key of a dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum DictKey {
    Str(Rc<str>),
    Int(i128),
    Bool(bool),
    None,
}

/// The `loop` of a loop.
#[derive(Debug)]
pub(super) struct LoopState {
    pub items: Vec<JinjaValue>,
    pub at: Cell<usize>,
    pub depth: usize,
    /// What `loop.changed` saw last.
    pub seen: RefCell<Option<Vec<JinjaValue>>>,
    /// The loop and its scope, where it may be called again.
    pub again: Option<(Arc<For>, usize)>,
}

impl DictKey {
    /// The key as a value.
    pub fn value(&self) -> JinjaValue {
        match self {
            DictKey::Str(text) => JinjaValue::Str(text.clone()),
            DictKey::Int(number) => JinjaValue::Int(*number),
            DictKey::Bool(is) => JinjaValue::Bool(*is),
            DictKey::None => JinjaValue::None,
        }
    }
}

impl From<&str> for JinjaValue {
    fn from(text: &str) -> Self {
        made(text.len() + OVERHEAD);
        JinjaValue::Str(text.into())
    }
}

impl From<String> for JinjaValue {
    fn from(text: String) -> Self {
        made(text.len() + OVERHEAD);
        JinjaValue::Str(text.into())
    }
}

impl From<&serde_json::Value> for JinjaValue {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => JinjaValue::None,
            Json::Bool(is) => JinjaValue::Bool(*is),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => JinjaValue::Int(number.into()),
                (_, Some(number)) => JinjaValue::Int(number.into()),
                _ => JinjaValue::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => text.as_str().into(),
            Json::Array(items) => JinjaValue::list(items.iter().map(JinjaValue::from).collect()),
            Json::Object(fields) => JinjaValue::Dict(Rc::new(
                fields.iter().map(|(key, value)| (DictKey::Str(key.as_str().into()), value.into())).collect(),
            )),
        }
    }
}

impl JinjaValue {
    /// A list.
    pub fn list(items: Vec<JinjaValue>) -> Self {
        holds(&items);
        JinjaValue::List(Rc::new(items))
    }

    /// A tuple.
    pub fn tuple(items: Vec<JinjaValue>) -> Self {
        holds(&items);
        JinjaValue::Tuple(Rc::new(items))
    }

    /// What a filter gives that Python evaluates as it is read.
    pub fn generator(items: Vec<JinjaValue>) -> Self {
        holds(&items);
        JinjaValue::Generator(Rc::new(RefCell::new(items.into())))
    }

    /// Something undefined.
    pub fn undefined(what: impl AsRef<str>) -> Self {
        JinjaValue::Undefined(what.as_ref().into())
    }

    /// Its type, as Python names it.
    pub fn kind(&self) -> &'static str {
        match self {
            JinjaValue::Undefined(_) => "Undefined",
            JinjaValue::None => "NoneType",
            JinjaValue::Bool(_) => "bool",
            JinjaValue::Int(_) => "int",
            JinjaValue::Float(_) => "float",
            JinjaValue::Str(_) => "str",
            JinjaValue::Markup(_) => "Markup",
            JinjaValue::List(_) => "list",
            JinjaValue::Tuple(_) => "tuple",
            JinjaValue::Dict(_) => "dict",
            JinjaValue::Range(..) => "range",
            JinjaValue::View(name, _) => name,
            JinjaValue::Generator(_) => "generator",
            JinjaValue::Namespace(_) => "Namespace",
            JinjaValue::Loop(_) => "LoopContext",
            JinjaValue::Method(_) | JinjaValue::Function(_) => "function",
            JinjaValue::Macro(..) => "Macro",
            JinjaValue::Cycler(_) => "Cycler",
            JinjaValue::Joiner(_) => "Joiner",
        }
    }

    /// Python's truth.
    pub fn is_true(&self) -> bool {
        match self {
            JinjaValue::Undefined(_) | JinjaValue::None => false,
            JinjaValue::Bool(is) => *is,
            JinjaValue::Int(number) => *number != 0,
            JinjaValue::Float(number) => *number != 0.0,
            JinjaValue::Str(text) => !text.is_empty(),
            JinjaValue::List(items) | JinjaValue::Tuple(items) | JinjaValue::View(_, items) => {
                !items.is_empty()
            }
            JinjaValue::Dict(fields) => !fields.is_empty(),
            JinjaValue::Range(..) => self.len().is_ok_and(|n| n > 0),
            _ => true,
        }
    }

    /// Python's `len`.
    ///
    /// # Errors
    /// If it has none.
    pub fn len(&self) -> Result<usize> {
        Ok(match self {
            JinjaValue::Undefined(_) => 0,
            JinjaValue::Str(text) => {
                worked(text.len());
                text.chars().count()
            }
            JinjaValue::List(items) | JinjaValue::Tuple(items) | JinjaValue::View(_, items) => items.len(),
            JinjaValue::Dict(fields) => fields.len(),
            JinjaValue::Range(start, stop, step) => range_len(*start, *stop, *step),
            JinjaValue::Loop(state) => state.items.len(),
            _ => bail!("object of type '{}' has no len()", self.kind()),
        })
    }

    /// Whether it holds values.
    pub fn is_container(&self) -> bool {
        !matches!(
            self,
            JinjaValue::Undefined(_)
                | JinjaValue::None
                | JinjaValue::Bool(_)
                | JinjaValue::Int(_)
                | JinjaValue::Float(_)
                | JinjaValue::Str(_)
                | JinjaValue::Markup(_)
                | JinjaValue::Range(..)
                | JinjaValue::Function(_)
                | JinjaValue::Macro(..)
        )
    }

    /// Its items, as a loop meets them; a generator is empty afterwards.
    ///
    /// # Errors
    /// If it has none.
    pub fn items(&self) -> Result<Vec<JinjaValue>> {
        if let JinjaValue::List(_) | JinjaValue::Tuple(_) | JinjaValue::View(..) | JinjaValue::Dict(_) = self
        {
            made(self.len()? * OVERHEAD);
        } else if let JinjaValue::Range(..) = self {
            made(self.len()?.saturating_mul(OVERHEAD));
        }
        Ok(match self {
            JinjaValue::Undefined(_) => Vec::new(),
            JinjaValue::Str(text) => {
                text.chars().map(|c| JinjaValue::from(&*c.encode_utf8(&mut [0; 4]))).collect()
            }
            JinjaValue::List(items) | JinjaValue::Tuple(items) | JinjaValue::View(_, items) => items.to_vec(),
            JinjaValue::Dict(fields) => fields.keys().map(DictKey::value).collect(),
            JinjaValue::Range(start, stop, step) => (0..range_len(*start, *stop, *step))
                .map(|i| JinjaValue::Int((*start + *step * i as i64).into()))
                .collect(),
            JinjaValue::Generator(items) => items.borrow_mut().drain(..).collect(),
            _ => bail!("'{}' object is not iterable", self.kind()),
        })
    }

    /// The key of a dictionary that it is.
    ///
    /// # Errors
    /// If Python cannot hash it, or hashes a kind that no template uses as a key.
    pub fn key(&self) -> Result<DictKey> {
        Ok(match self {
            JinjaValue::Str(text) => DictKey::Str(text.clone()),
            JinjaValue::Int(number) => DictKey::Int(*number),
            JinjaValue::Bool(is) => DictKey::Bool(*is),
            JinjaValue::None => DictKey::None,
            _ => bail!("a '{}' is no key of a dict", self.kind()),
        })
    }

    /// The integer that it is.
    ///
    /// # Errors
    /// If it is none.
    pub fn int(&self) -> Result<i128> {
        match self {
            JinjaValue::Int(number) => Ok(*number),
            JinjaValue::Bool(is) => Ok((*is).into()),
            JinjaValue::Undefined(what) => Err(undefined(what)),
            _ => bail!("'{}' object cannot be interpreted as an integer", self.kind()),
        }
    }

    /// The number that it is, as Python's arithmetic takes it.
    pub fn number(&self) -> Option<f64> {
        match self {
            JinjaValue::Int(number) => Some(*number as f64),
            JinjaValue::Bool(is) => Some(f64::from(u8::from(*is))),
            JinjaValue::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            JinjaValue::Str(text) | JinjaValue::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// Python's `str`.
    pub fn text(&self) -> Rc<str> {
        match self {
            JinjaValue::Str(text) | JinjaValue::Markup(text) => text.clone(),
            JinjaValue::Undefined(_) => "".into(),
            _ => self.repr().into(),
        }
    }

    /// The value as all but additions take it: markup is a text.
    pub fn plain(self) -> Self {
        match self {
            JinjaValue::Markup(text) => JinjaValue::Str(text),
            other => other,
        }
    }

    /// Python's `repr`.
    pub fn repr(&self) -> String {
        let _level = Level::enter();
        made(OVERHEAD + self.as_str().map_or(0, |text| 2 * text.len()));
        let of = |items: &[JinjaValue]| items.iter().map(JinjaValue::repr).collect::<Vec<_>>().join(", ");
        let dict = |fields: &Dict| {
            let field =
                |(key, value): (&DictKey, &JinjaValue)| format!("{}: {}", key.value().repr(), value.repr());
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        };
        match self {
            JinjaValue::Undefined(_) => "Undefined".into(),
            JinjaValue::None => "None".into(),
            JinjaValue::Bool(true) => "True".into(),
            JinjaValue::Bool(false) => "False".into(),
            JinjaValue::Int(number) => number.to_string(),
            JinjaValue::Float(number) => float(*number),
            JinjaValue::Str(text) => repr(text),
            JinjaValue::Markup(text) => format!("Markup({})", repr(text)),
            JinjaValue::List(items) => format!("[{}]", of(items)),
            JinjaValue::Tuple(items) if items.len() == 1 => format!("({},)", of(items)),
            JinjaValue::Tuple(items) => format!("({})", of(items)),
            JinjaValue::Dict(fields) => dict(fields),
            JinjaValue::Range(start, stop, 1) => format!("range({start}, {stop})"),
            JinjaValue::Range(start, stop, step) => format!("range({start}, {stop}, {step})"),
            JinjaValue::View(name, items) => format!("{name}([{}])", of(items)),
            JinjaValue::Namespace(fields) => format!("<Namespace {}>", dict(&fields.borrow())),
            JinjaValue::Macro(of, _) => format!("<Macro {}>", repr(&of.name)),
            other => format!("<{}>", other.kind()),
        }
    }

    /// Python's `==`.
    pub fn equals(&self, other: &JinjaValue) -> bool {
        let _level = Level::enter();
        worked(16 + self.as_str().map_or(0, str::len));
        let all = |a: &[JinjaValue], b: &[JinjaValue]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
        };
        match (self, other) {
            (JinjaValue::Undefined(_), JinjaValue::Undefined(_)) | (JinjaValue::None, JinjaValue::None) => {
                true
            }
            (JinjaValue::Str(a), JinjaValue::Str(b)) => a == b,
            (JinjaValue::Int(a), JinjaValue::Int(b)) => a == b,
            (JinjaValue::List(a), JinjaValue::List(b)) | (JinjaValue::Tuple(a), JinjaValue::Tuple(b)) => {
                all(a, b)
            }
            (JinjaValue::Dict(a), JinjaValue::Dict(b)) => {
                a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|b| value.equals(b)))
            }
            (JinjaValue::Range(..), JinjaValue::Range(..)) | (JinjaValue::View(..), JinjaValue::View(..)) => {
                matches!((self.items(), other.items()), (Ok(a), Ok(b)) if all(&a, &b))
            }
            (JinjaValue::Namespace(a), JinjaValue::Namespace(b)) => Rc::ptr_eq(a, b),
            (JinjaValue::Macro(a, _), JinjaValue::Macro(b, _)) => Arc::ptr_eq(a, b),
            (JinjaValue::Function(a), JinjaValue::Function(b)) => a == b,
            _ => matches!((self.number(), other.number()), (Some(a), Some(b)) if a == b),
        }
    }

    /// Python's order.
    ///
    /// # Errors
    /// If Python has none of these two.
    pub fn compare(&self, other: &JinjaValue) -> Result<Option<Ordering>> {
        let _level = Level::enter();
        worked(16 + self.as_str().map_or(0, str::len));
        match (self, other) {
            (JinjaValue::Str(a), JinjaValue::Str(b)) => Ok(Some(a.cmp(b))),
            (JinjaValue::Int(a), JinjaValue::Int(b)) => Ok(Some(a.cmp(b))),
            (JinjaValue::List(a), JinjaValue::List(b)) | (JinjaValue::Tuple(a), JinjaValue::Tuple(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (JinjaValue::Undefined(what), _) | (_, JinjaValue::Undefined(what)) => Err(undefined(what)),
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
    pub fn contains(&self, item: &JinjaValue) -> Result<bool> {
        worked(16 + self.as_str().map_or(0, str::len));
        match (self, item) {
            (JinjaValue::Str(text), JinjaValue::Str(part)) => Ok(text.contains(&**part)),
            (JinjaValue::Str(_), JinjaValue::Undefined(what)) => Err(undefined(what)),
            (JinjaValue::Str(_), _) => {
                bail!("'in <string>' requires string as left operand, not {}", item.kind())
            }
            (JinjaValue::Dict(fields), _) => Ok(item.key().is_ok_and(|key| fields.contains_key(&key))),
            (JinjaValue::Undefined(_), _) => Ok(false),
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
