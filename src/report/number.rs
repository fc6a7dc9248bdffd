//! How numbers are written for people: always with the digits that they deserve, never `-0.00`.

use crate::diff::statistics::Interval;

/// What stands in a table where nothing was measured.
pub const ABSENT: &str = "–";

/// With `digits` decimals.
pub fn fixed(x: f64, digits: usize) -> String {
    let s = format!("{x:.digits$}");
    match s.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => s,
    }
}

/// The same with a sign also when positive.
pub fn signed(x: f64, digits: usize) -> String {
    let s = fixed(x, digits);
    let zero = s.chars().all(|c| c == '0' || c == '.');
    if zero || s.starts_with('−') { s } else { format!("+{s}") }
}

/// `[low, high]`.
pub fn interval(i: Interval, digits: usize) -> String {
    format!("[{}, {}]", fixed(i[0], digits), fixed(i[1], digits))
}

/// As short as it can be said with at most three decimals: 0, 0.5, 1.25.
pub fn ratio(x: f64) -> String {
    let s = fixed(x, 3);
    if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').into() } else { s }
}

/// The same of a ratio that may not be known.
pub fn realised(x: Option<f64>) -> String {
    x.map_or_else(|| ABSENT.into(), ratio)
}

/// A p-value.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("= {}", fixed(p, 3)) }
}

/// A whole number with thin spaces between groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// A duration in the two largest units that apply.
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{} s", fixed(seconds, 1));
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// A time in seconds since 1970: `2026-01-05 10:00 UTC`.
pub fn utc(seconds: u64) -> String {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Four hundred years are 146,097 days, whichever they are.
    let days = seconds / 86_400;
    let (mut year, mut day) = (1970 + 400 * (days / 146_097), days % 146_097);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(signed(0.1834, 2), "+0.18");
        assert_eq!(signed(-0.1834, 2), "−0.18");
        assert_eq!(ratio(0.5), "0.5");
        assert_eq!(ratio(10.0), "10");
        assert_eq!(p_value(1.0 / 65.0), "= 0.015");
        assert_eq!(grouped(1234567), "1\u{202f}234\u{202f}567");
        assert_eq!(duration(75.0), "1 min 15 s");
    }

    #[test]
    fn times_are_in_utc() {
        // As `date -u -d @SECONDS` has them.
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_767_607_200), "2026-01-05 10:00 UTC");
        assert_eq!(utc(4_107_542_399), "2100-02-28 23:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00 UTC");
    }
}
