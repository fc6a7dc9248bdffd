//! Jinja's tests: what stands behind `is`.

use std::cmp::Ordering;
use std::rc::Rc;

use anyhow::{Result, bail};

use super::given::Given;
use super::value::Value;

/// Whether a value passes a test.
///
/// # Errors
/// If Python has no answer, or the arguments do not fit.
pub(super) fn test(name: &str, value: &Value, given: Given) -> Result<bool> {
    let takes_one = matches!(
        name,
        "divisibleby"
            | "eq"
            | "equalto"
            | "=="
            | "ne"
            | "!="
            | "lt"
            | "lessthan"
            | "<"
            | "le"
            | "<="
            | "gt"
            | "greaterthan"
            | ">"
            | "ge"
            | ">="
            | "in"
            | "sameas"
    );
    let other = if takes_one {
        let [other] = given.bind(name, ["other"], 1)?;
        other.unwrap_or(Value::None)
    } else {
        let [] = given.bind(name, [], 0)?;
        Value::None
    };
    let ordered = |is: fn(Ordering) -> bool| value.compare(&other).map(|order| order.is_some_and(is));
    let remainder = |by: i128| match by {
        0 => bail!("integer modulo by zero"),
        by => Ok(value.int()?.rem_euclid(by)),
    };
    let cased = |is: fn(char) -> bool, isnt: fn(char) -> bool| {
        let text = value.text();
        text.chars().any(is) && !text.chars().any(isnt)
    };
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" | "None" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" | "True" => matches!(value, Value::Bool(true)),
        "false" | "False" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.number().is_some(),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => value.len().is_ok() || matches!(value, Value::Generator(_) | Value::Loop(_)),
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range(..)
        ),
        "callable" => matches!(
            value,
            Value::Method(_)
                | Value::Function(_)
                | Value::Macro(..)
                | Value::Joiner(_)
                | Value::Undefined(_)
                | Value::Loop(_)
        ),
        "escaped" => false,
        "lower" => cased(char::is_lowercase, char::is_uppercase),
        "upper" => cased(char::is_uppercase, char::is_lowercase),
        "even" => remainder(2)? == 0,
        "odd" => remainder(2)? == 1,
        "divisibleby" => remainder(other.int()?.abs())? == 0,
        "eq" | "equalto" | "==" => value.equals(&other),
        "ne" | "!=" => !value.equals(&other),
        "lt" | "lessthan" | "<" => ordered(Ordering::is_lt)?,
        "le" | "<=" => ordered(Ordering::is_le)?,
        "gt" | "greaterthan" | ">" => ordered(Ordering::is_gt)?,
        "ge" | ">=" => ordered(Ordering::is_ge)?,
        "in" => other.contains(value)?,
        "sameas" => match (value, &other) {
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
            (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.kind() == b.kind() && a.equals(b),
        },
        other => bail!("no test named {other:?} is supported"),
    })
}
