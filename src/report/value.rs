//! A value of a summary as people read it.

use serde_json::Value;

/// A value for people: three digits after the point, paths by their last part.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::Number(n) if n.is_f64() => {
            let x = n.as_f64().unwrap_or_default();
            if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) {
                format!("{x:.3e}")
            } else {
                let text = format!("{x:.4}");
                text.trim_end_matches('0').trim_end_matches('.').to_string()
            }
        }
        Value::String(s) if s.starts_with('/') => s.rsplit('/').next().unwrap_or_default().into(),
        Value::String(s) => s.replace('\n', " "),
        other => other.to_string(),
    }
}
