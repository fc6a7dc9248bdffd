//! What every request over HTTP has in common: which failures pass, and how long to wait before the next try.

use std::time::Duration;

/// A longer `Retry-After` than this ends the command; it can be given again later.
pub const LONGEST_WAIT_S: f64 = 600.0;
/// Longest pause between two tries that the server did not ask for.
const LONGEST_BACKOFF_S: f64 = 60.0;

/// Whether a status is one of the moment: too many requests, a server that is down.
pub fn passes(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..=599)
}

/// The seconds of a `Retry-After` header. (Its other form, a date, counts as none.)
pub fn retry_after(header: &str) -> Option<Duration> {
    let seconds = header.trim().parse::<f64>().ok();
    seconds.filter(|s| s.is_finite() && (0.0..1e9).contains(s)).map(Duration::from_secs_f64)
}

/// The pause before the next try: what the server asks for, or twice as long as the last time; `jitter` is a factor of
/// 0.5 to 1 that keeps several processes apart.
pub fn pause(attempt: usize, first_s: f64, jitter: f64, asked: Option<Duration>) -> Duration {
    let backoff = first_s * 2f64.powi(attempt.min(30) as i32);
    let backoff = Duration::from_secs_f64(backoff.min(LONGEST_BACKOFF_S) * jitter);
    asked.map_or(backoff, |asked| asked.max(backoff))
}

/// Whether a server is on this machine: no proxy reaches it.
pub fn is_local(base_url: &str) -> bool {
    let rest = base_url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.starts_with("[::1]") {
        return true;
    }
    let host = authority.split(':').next().unwrap_or_default();
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a failure is one of the address, not of the moment.
pub fn lasts(e: &ureq::Error) -> bool {
    use ureq::Error::{BadUri, Http, InvalidProxyUrl, RedirectFailed, Tls, TooManyRedirects};
    matches!(e, BadUri(_) | Http(_) | InvalidProxyUrl | RedirectFailed | Tls(_) | TooManyRedirects)
}
