//! The time of day, for `strftime_now`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Bytes that a format may have.
const LONGEST_FORMAT: usize = 4096;

/// Local time as the format says, after C's `strftime`. `SOURCE_DATE_EPOCH` sets another moment, in UTC, as
/// <https://reproducible-builds.org/specs/source-date-epoch/> has it: then what a template writes is the same every day.
///
/// # Errors
/// If `SOURCE_DATE_EPOCH` is no number of seconds, or the format is not known.
pub(super) fn now(format: &str) -> Result<String> {
    let fixed = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => match text.parse::<i64>() {
            Ok(seconds) => Some(seconds),
            Err(_) => bail!("SOURCE_DATE_EPOCH is {text:?}; expected seconds since 1970"),
        },
        _ => None,
    };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    format_time(format, fixed.unwrap_or(seconds), fixed.is_none())
}

#[cfg(unix)]
fn format_time(format: &str, seconds: i64, local: bool) -> Result<String> {
    let Ok(c_format) = std::ffi::CString::new(format) else {
        bail!("strftime_now: a format with a zero byte")
    };
    if format.len() > LONGEST_FORMAT {
        bail!("strftime_now: a format of {} bytes; expected at most {LONGEST_FORMAT}", format.len());
    }
    if format.is_empty() {
        return Ok(String::new());
    }
    // `libc::time_t` is i64 on every platform with 64 bits.
    let seconds = seconds as libc::time_t;
    let mut buffer = vec![0u8; 64 + 32 * format.len()];
    // SAFETY: `tm` is a plain structure that either call fills; `strftime` writes at most the buffer's length and ends the
    // text with a zero byte.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let filled =
            if local { libc::localtime_r(&seconds, &mut tm) } else { libc::gmtime_r(&seconds, &mut tm) };
        if filled.is_null() {
            bail!("strftime_now: no such time");
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), c_format.as_ptr(), &tm)
    };
    buffer.truncate(length);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

#[cfg(not(unix))]
fn format_time(_: &str, _: i64, _: bool) -> Result<String> {
    bail!("strftime_now: this build has no clock for templates")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_written_as_the_format_says() {
        assert_eq!(
            format_time("%d %b %Y, %H:%M:%S %A %j 100%%", 1_700_000_000, false).unwrap(),
            "14 Nov 2023, 22:13:20 Tuesday 318 100%"
        );
        assert_eq!(format_time("", 0, false).unwrap(), "");
    }
}
