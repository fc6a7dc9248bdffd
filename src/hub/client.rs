//! Requests to a hub: tried again while a failure may pass, and given up with one clear error.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::fault::HubFault;
use super::settings::{
    CONNECT, FIRST_BYTE, FIRST_PAUSE_S, HubSettings, KEPT, REQUEST, TRIES, Token, USER_AGENT,
};
use crate::http;
use crate::interrupt::Interrupt;
use crate::progress;

/// Largest answer that is read whole.
const LARGEST_BODY: u64 = 256 << 20;

/// A hub that can be asked.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<Token>,
    interrupt: Interrupt,
    received: AtomicU64,
}

/// What came, and the length of the whole file where the answer is to a range.
type Body = (Vec<u8>, Option<u64>);

/// One answer, or as much as came of it.
struct HubReply {
    status: u16,
    retry_after: Option<Duration>,
    /// Bytes of the whole file, of an answer to a range.
    total: Option<u64>,
    body: Vec<u8>,
    cut: Option<String>,
}

impl Client {
    /// A client of a hub. Asks nothing yet.
    pub fn new(settings: HubSettings, interrupt: &Interrupt) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(format!("{}/{}", USER_AGENT.0, USER_AGENT.1))
            // A repository that was renamed is a redirect of the hub; its storage must not see the token.
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(FIRST_BYTE))
            .timeout_global(Some(REQUEST));
        if http::is_local(&settings.endpoint) {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint,
            token: settings.token,
            interrupt: interrupt.clone(),
            received: AtomicU64::new(0),
        }
    }

    /// Bytes of bodies that came so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A JSON document; `path` begins with a slash.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn json(&self, path: &str) -> Result<Result<Value, HubFault>> {
        let body = match self.patiently(path, None)? {
            Ok((body, _)) => body,
            Err(fault) => return Ok(Err(fault)),
        };
        Ok(serde_json::from_slice(&body).map_err(|e| HubFault::Other(format!("the answer is not JSON: {e}"))))
    }

    /// The bytes `start..start + length` of a file, or up to its end, and the length of the whole file.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn range(&self, path: &str, start: u64, length: u64) -> Result<Result<(Vec<u8>, u64), HubFault>> {
        let found = self.patiently(path, Some((start, length)))?;
        Ok(found.and_then(|(body, total)| {
            let total =
                total.ok_or_else(|| HubFault::Other("the server does not support byte ranges".into()))?;
            Ok((body, total))
        }))
    }

    /// Asks until the answer is whole. What came before a cut stays, and counts as success: the tries begin anew.
    fn patiently(&self, path: &str, range: Option<(u64, u64)>) -> Result<Result<Body, HubFault>> {
        let (mut have, mut attempt) = (Vec::new(), 0);
        loop {
            let rest = range.map(|(start, length)| (start + have.len() as u64, length - have.len() as u64));
            let (why, asked) = match self.once(path, rest)? {
                Ok(mut reply) => match (reply.status, reply.cut.take()) {
                    (200..=299, None) if range.is_some() && reply.status != 206 => {
                        return Ok(Err(HubFault::Other("the server does not support byte ranges".into())));
                    }
                    (200..=299, None) => {
                        have.append(&mut reply.body);
                        return Ok(Ok((have, reply.total)));
                    }
                    (200..=299, Some(why)) => {
                        // Only a range can go on where it was cut.
                        if reply.status == 206 && !reply.body.is_empty() {
                            have.append(&mut reply.body);
                            attempt = 0;
                        }
                        (why, None)
                    }
                    (401 | 403, _) => return Ok(Err(HubFault::Refused)),
                    (404, _) => return Ok(Err(HubFault::Absent)),
                    (416, _) => return Ok(Err(HubFault::BeyondEnd)),
                    (status, _) if http::passes(status) => (format!("HTTP {status}"), reply.retry_after),
                    (status, _) => return Ok(Err(HubFault::Other(format!("HTTP {status}")))),
                },
                Err(e) if http::lasts(&e) => return Ok(Err(HubFault::Other(e.to_string()))),
                Err(e) => (e.to_string(), None),
            };
            attempt += 1;
            // Apart from other processes that were refused at the same moment.
            let jitter = 0.5 + 0.5 * f64::from(std::process::id() % 97) / 97.0;
            let pause = http::pause(attempt - 1, FIRST_PAUSE_S, jitter, asked);
            if attempt >= TRIES {
                return Ok(Err(HubFault::Other(format!(
                    "{why}, {TRIES} times in a row; is there a network?"
                ))));
            }
            if pause.as_secs_f64() > http::LONGEST_WAIT_S {
                let why = format!("{why}; the hub asks to wait {:.0} s", pause.as_secs_f64());
                return Ok(Err(HubFault::Other(why)));
            }
            progress::detail(format_args!(
                "{}{path}: {why}; trying again in {:.1} s",
                self.endpoint,
                pause.as_secs_f64()
            ));
            self.interrupt.sleep_until(Instant::now() + pause, KEPT)?;
        }
    }

    /// One request.
    fn once(&self, path: &str, range: Option<(u64, u64)>) -> Result<Result<HubReply, ureq::Error>> {
        let mut request = self.agent.get(format!("{}{path}", self.endpoint));
        if let Some(Token(token)) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((start, length)) = range {
            request = request.header("range", format!("bytes={start}-{}", start + length.max(1) - 1));
        }
        let limit = range.map_or(LARGEST_BODY, |(_, length)| length);
        let reply = self.interrupt.or_leave(KEPT, move || -> Result<HubReply, ureq::Error> {
            let response = request.call()?;
            let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
            let retry_after = header("retry-after").and_then(http::retry_after);
            let total = header("content-range").and_then(|v| v.rsplit_once('/')?.1.trim().parse().ok());
            let status = response.status().as_u16();
            let mut body = Vec::new();
            // A whole file in place of a range may be large, and is of no use.
            let wanted = range.is_none() || status == 206;
            let read = match wanted {
                true => response.into_body().into_reader().take(limit).read_to_end(&mut body),
                false => Ok(0),
            };
            let expected =
                total.zip(range).map(|(total, (start, n)): (u64, _)| n.min(total.saturating_sub(start)));
            let short = wanted && expected.is_some_and(|n| (body.len() as u64) < n);
            let cut = read.err().map(|e| e.to_string()).or(short.then(|| "the connection was cut".into()));
            Ok(HubReply { status, retry_after, total, body, cut })
        })?;
        if let Ok(reply) = &reply {
            self.received.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        }
        Ok(reply)
    }
}
