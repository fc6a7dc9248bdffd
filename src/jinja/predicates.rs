//! Jinja's tests: what stands behind `is`.

use std::cmp::Ordering;
use std::rc::Rc;

use anyhow::{Result, bail};

use super::given::Given;
use super::value::JinjaValue;

/// Whether a value passes a test.
///
/// # Errors
/// If Python has no answer, or the arguments do not fit.
pub(super) fn test(name: &str, value: &JinjaValue, given: Given) -> Result<bool> {
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
        other.unwrap_or(JinjaValue::None)
    } else {
        let [] = given.bind(name, [], 0)?;
        JinjaValue::None
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
        "defined" => !matches!(value, JinjaValue::Undefined(_)),
        "undefined" => matches!(value, JinjaValue::Undefined(_)),
        "none" | "None" => matches!(value, JinjaValue::None),
        "boolean" => matches!(value, JinjaValue::Bool(_)),
        "true" | "True" => matches!(value, JinjaValue::Bool(true)),
        "false" | "False" => matches!(value, JinjaValue::Bool(false)),
        "integer" => matches!(value, JinjaValue::Int(_)),
        "float" => matches!(value, JinjaValue::Float(_)),
        "number" => value.number().is_some(),
        "string" => matches!(value, JinjaValue::Str(_)),
        "mapping" => matches!(value, JinjaValue::Dict(_)),
        "iterable" => value.len().is_ok() || matches!(value, JinjaValue::Generator(_) | JinjaValue::Loop(_)),
        "sequence" => matches!(
            value,
            JinjaValue::Undefined(_)
                | JinjaValue::Str(_)
                | JinjaValue::List(_)
                | JinjaValue::Tuple(_)
                | JinjaValue::Dict(_)
                | JinjaValue::Range(..)
        ),
        "callable" => matches!(
            value,
            JinjaValue::Method(_)
                | JinjaValue::Function(_)
                | JinjaValue::Macro(..)
                | JinjaValue::Joiner(_)
                | JinjaValue::Undefined(_)
                | JinjaValue::Loop(_)
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
            (JinjaValue::List(a), JinjaValue::List(b)) | (JinjaValue::Tuple(a), JinjaValue::Tuple(b)) => {
                Rc::ptr_eq(a, b)
            }
            (JinjaValue::Dict(a), JinjaValue::Dict(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.kind() == b.kind() && a.equals(b),
        },
        other => bail!("no test named {other:?} is supported"),
    })
}
