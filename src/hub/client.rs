//! Requests to a hub: tried again while a failure may pass, and given up with one clear error. The token goes to the hub
//! alone: redirects are followed here, and none to another scheme, host or port takes it along.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::fault::HubFault;
use super::origin::{Origin, redirected};
use super::settings::{
    CONNECT, DOWNLOAD, FIRST_BYTE, FIRST_PAUSE_S, HubSettings, KEPT, REQUEST, STALL, TRIES, Token, USER_AGENT,
};
use crate::http;
use crate::interrupt::Interrupt;
use crate::limits::{LARGEST_LISTING, LEAST_PROGRESS, MOST_REDIRECTS};
use crate::progress;

/// A hub that can be asked.
#[derive(Debug)]
pub struct Client {
    asker: Arc<Asker>,
    interrupt: Interrupt,
    received: AtomicU64,
}

/// What came, and the length of the whole file where the answer is to a range.
type RangeBody = (Vec<u8>, Option<u64>);

/// What the hub says of a file before any of it is fetched.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Announced {
    /// The commit that the revision is.
    pub commit: Option<String>,
    /// The name of the content: of large files its sha256.
    pub etag: Option<String>,
    /// Bytes of the file.
    pub length: Option<u64>,
}

impl Announced {
    /// The sha256 of the content, where the hub names it.
    pub(super) fn sha256(&self) -> Option<&str> {
        let etag = self.etag.as_deref()?;
        (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
    }
}

/// How one try ended.
enum Try<T> {
    Done(T),
    Fault(HubFault),
    /// It may succeed the next time: why, how long the server asks to wait, and whether anything came.
    Again {
        why: String,
        asked: Option<Duration>,
        progress: bool,
    },
}

impl<T> Try<T> {
    fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), asked: None, progress: false }
    }
}

/// Sends requests and follows redirects.
#[derive(Debug)]
struct Asker {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

/// An answer at the end of its redirects.
struct HubReply {
    response: Response<Body>,
    announced: Announced,
    /// Of a `Content-Range`: where the body begins, and the bytes of the whole file.
    range: Option<(u64, u64)>,
}

impl HubReply {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The fault or the pause that a status other than 200 to 299 means.
    fn refusal<T>(&self) -> Option<Try<T>> {
        let header = self.response.headers().get("retry-after").and_then(|v| v.to_str().ok());
        Some(match self.status() {
            200..=299 => return None,
            401 | 403 => Try::Fault(HubFault::Refused),
            404 => Try::Fault(HubFault::Absent),
            416 => Try::Fault(HubFault::BeyondEnd),
            status if http::passes(status) => Try::Again {
                why: format!("HTTP {status}"),
                asked: header.and_then(http::retry_after),
                progress: false,
            },
            status => Try::Fault(HubFault::Other(format!("HTTP {status}"))),
        })
    }
}

impl Asker {
    /// One request and its redirects. `patience` is the longest time of the whole.
    fn ask(&self, path: &str, range: Option<(u64, u64)>, patience: Duration) -> Result<HubReply, AskError> {
        let mut address = format!("{}{path}", self.endpoint);
        let home = Origin::of(&address)
            .ok_or_else(|| AskError::Lasting(format!("{}: expected http://… or https://…", self.endpoint)))?;
        let begun = Instant::now();
        let mut announced = Announced::default();
        for _ in 0..=MOST_REDIRECTS {
            let origin = Origin::of(&address).ok_or_else(|| {
                AskError::Lasting("it redirects to an address that is neither http nor https".into())
            })?;
            if origin.is_plain() && !home.is_plain() {
                return Err(AskError::Lasting("it redirects from https to http".into()));
            }
            let left = patience.saturating_sub(begun.elapsed());
            let mut request = self.agent.get(&address).config().timeout_global(Some(left)).build();
            if let Some(Token(token)) = self.token.as_ref().filter(|_| origin == home) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some((start, length)) = range {
                let last = start.saturating_add(length.max(1)) - 1;
                let end = if length == u64::MAX { String::new() } else { last.to_string() };
                request = request.header("range", format!("bytes={start}-{end}"));
            }
            let response = request.call()?;
            let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
            // The hub itself names commit and content; what storage calls a file is its own affair, unless nobody else does.
            announced.commit =
                announced.commit.take().or_else(|| header("x-repo-commit").map(str::to_string));
            announced.etag = announced.etag.take().or_else(|| header("x-linked-etag").map(plain_etag));
            let linked = header("x-linked-size").and_then(|v| v.trim().parse().ok());
            announced.length = announced.length.or(linked);
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                announced.etag = announced.etag.take().or_else(|| header("etag").map(plain_etag));
                let range = header("content-range").and_then(content_range);
                return Ok(HubReply { range, announced, response });
            }
            let location = header("location").unwrap_or_default();
            address = redirected(&address, location)
                .ok_or_else(|| AskError::Lasting("it redirects without saying where".into()))?;
        }
        Err(AskError::Lasting(format!("it redirects more than {MOST_REDIRECTS} times")))
    }
}

/// An ETag without quotes and the mark of weak comparison.
fn plain_etag(header: &str) -> String {
    header.trim().trim_start_matches("W/").trim_matches('"').to_string()
}

/// Start and total of `bytes START-END/TOTAL`.
fn content_range(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()?))
}

/// A request without an answer.
enum AskError {
    /// It would fail again.
    Lasting(String),
    /// It may succeed later.
    Passing(String),
}

impl From<ureq::Error> for AskError {
    fn from(e: ureq::Error) -> Self {
        match http::lasts(&e) {
            true => Self::Lasting(e.to_string()),
            false => Self::Passing(e.to_string()),
        }
    }
}

impl<T> From<AskError> for Try<T> {
    fn from(e: AskError) -> Self {
        match e {
            AskError::Lasting(why) => Self::Fault(HubFault::Other(why)),
            AskError::Passing(why) => Self::again(why),
        }
    }
}

impl Client {
    /// A client of a hub. Asks nothing yet.
    pub fn new(settings: HubSettings, interrupt: &Interrupt) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(format!("{}/{}", USER_AGENT.0, USER_AGENT.1))
            // With 0 the answer itself comes back; `Asker::ask` follows it.
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(FIRST_BYTE))
            .timeout_per_read(Some(STALL));
        if http::is_local(&settings.endpoint) {
            config = config.proxy(None);
        }
        Self {
            asker: Arc::new(Asker {
                agent: config.build().new_agent(),
                endpoint: settings.endpoint,
                token: settings.token,
            }),
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
        let body = self.patiently(path, || {
            self.aside(path, None, REQUEST, |reply| {
                let mut body = Vec::new();
                let read =
                    reply.response.into_body().into_reader().take(LARGEST_LISTING + 1).read_to_end(&mut body);
                match read {
                    Err(e) => Try::again(e.to_string()),
                    Ok(_) if body.len() as u64 > LARGEST_LISTING => Try::Fault(HubFault::Other(format!(
                        "its description is longer than {} MiB",
                        LARGEST_LISTING >> 20
                    ))),
                    Ok(_) => Try::Done(body),
                }
            })
        })?;
        Ok(body.and_then(|body| {
            self.received.fetch_add(body.len() as u64, Ordering::Relaxed);
            serde_json::from_slice(&body).map_err(|e| HubFault::Other(format!("the answer is not JSON: {e}")))
        }))
    }

    /// The bytes `start..start + length` of a file, or up to its end, and the length of the whole file.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn range(&self, path: &str, start: u64, length: u64) -> Result<Result<(Vec<u8>, u64), HubFault>> {
        let no_ranges = || HubFault::Other("the server does not support byte ranges".into());
        let mut have: Vec<u8> = Vec::new();
        let found = self.patiently(path, || {
            let rest = (start + have.len() as u64, length - have.len() as u64);
            let part = self.aside(path, Some(rest), REQUEST, move |reply| {
                // A whole file in place of a range may be large, and is of no use.
                let (206, Some((from, total))) = (reply.status(), reply.range) else {
                    return Try::Fault(no_ranges());
                };
                if from != rest.0 {
                    return Try::Fault(HubFault::Other("the server answers with another range".into()));
                }
                let mut body = Vec::new();
                let read = reply.response.into_body().into_reader().take(rest.1).read_to_end(&mut body);
                let expected = rest.1.min(total.saturating_sub(rest.0));
                let is_short = (body.len() as u64) < expected;
                let cut = read.err().map(|e| e.to_string());
                Try::Done((body, total, cut.or(is_short.then(|| "the connection was cut".into()))))
            })?;
            Ok(match part {
                Try::Done((mut body, total, cut)) => {
                    self.received.fetch_add(body.len() as u64, Ordering::Relaxed);
                    let progress = !body.is_empty();
                    have.append(&mut body);
                    match cut {
                        // What came before a cut stays, and counts as success: the tries begin anew.
                        Some(why) => Try::Again { why, asked: None, progress },
                        None => Try::Done((std::mem::take(&mut have), Some(total))),
                    }
                }
                Try::Fault(fault) => Try::Fault(fault),
                Try::Again { why, asked, progress } => Try::Again { why, asked, progress },
            })
        })?;
        Ok(found.and_then(|(body, total): RangeBody| Ok((body, total.ok_or_else(no_ranges)?))))
    }

    /// What the hub says of a file, by asking for its first byte.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub(super) fn announced(&self, path: &str) -> Result<Result<Announced, HubFault>> {
        self.patiently(path, || {
            self.aside(path, Some((0, 1)), REQUEST, |reply| {
                let mut announced = reply.announced.clone();
                let there = match reply.range {
                    Some((_, total)) => Some(total),
                    None => reply.response.body().content_length().filter(|_| reply.status() == 200),
                };
                match (announced.length, there) {
                    (Some(said), Some(there)) if said != there => Try::Fault(HubFault::Other(format!(
                        "the hub says {said} bytes, and its storage {there}"
                    ))),
                    (said, there) => {
                        announced.length = there.or(said);
                        Try::Done(announced)
                    }
                }
            })
        })
    }

    /// Fetches a whole file to `part`, from where an earlier fetch left it. The file has the announced length afterwards.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; if `part` cannot be written.
    pub(super) fn download(
        &self,
        path: &str,
        announced: &Announced,
        part: &Path,
        bar: &ProgressBar,
    ) -> Result<Result<(), HubFault>> {
        let length = announced.length;
        let writing = || format!("writing {}", part.display());
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(part);
        let mut have = open().and_then(|file| file.metadata()).with_context(writing)?.len();
        if length.is_some_and(|length| have > length) {
            have = 0;
        }
        let mut failed: Option<std::io::Error> = None;
        let done = self.patiently(path, || {
            if length == Some(have) {
                // Also a file that was longer before.
                return match open().and_then(|file| file.set_len(have)) {
                    Ok(()) => Ok(Try::Done(())),
                    Err(e) => {
                        failed = Some(e);
                        Ok(Try::Done(()))
                    }
                };
            }
            let file = match open() {
                Ok(file) => file,
                Err(e) => {
                    failed = Some(e);
                    return Ok(Try::Done(()));
                }
            };
            let (from, announced, bar) = (have, announced.clone(), bar.clone());
            let part = self.aside(path, Some((from, u64::MAX)), DOWNLOAD, move |reply| {
                Try::Done(received(reply, file, from, &announced, &bar))
            })?;
            Ok(match part {
                Try::Done(Received::Failed(e)) => {
                    failed = Some(e);
                    Try::Done(())
                }
                Try::Done(Received::Fault(why)) => Try::Fault(HubFault::Other(why)),
                Try::Done(Received::Bytes { end, new, cut }) => {
                    self.received.fetch_add(new, Ordering::Relaxed);
                    have = end;
                    match cut {
                        Some(why) => Try::Again { why, asked: None, progress: new >= LEAST_PROGRESS },
                        None => Try::Done(()),
                    }
                }
                Try::Fault(fault) => Try::Fault(fault),
                Try::Again { why, asked, progress } => Try::Again { why, asked, progress },
            })
        })?;
        match failed {
            Some(e) => Err(e).with_context(writing),
            None => Ok(done),
        }
    }

    /// One request, whose answer `read` gets on a thread of its own, so that Ctrl-C need not wait for it.
    fn aside<T: Send + 'static>(
        &self,
        path: &str,
        range: Option<(u64, u64)>,
        patience: Duration,
        read: impl FnOnce(HubReply) -> Try<T> + Send + 'static,
    ) -> Result<Try<T>> {
        let (asker, path) = (self.asker.clone(), path.to_string());
        self.interrupt.or_leave(KEPT, move || match asker.ask(&path, range, patience) {
            Ok(reply) => reply.refusal().unwrap_or_else(|| read(reply)),
            Err(e) => e.into(),
        })
    }

    /// Tries until something comes of it.
    fn patiently<T>(
        &self,
        path: &str,
        mut once: impl FnMut() -> Result<Try<T>>,
    ) -> Result<Result<T, HubFault>> {
        let mut attempt = 0;
        loop {
            let (why, asked) = match once()? {
                Try::Done(value) => return Ok(Ok(value)),
                Try::Fault(fault) => return Ok(Err(fault)),
                Try::Again { why, asked, progress } => {
                    attempt = if progress { 1 } else { attempt + 1 };
                    (why, asked)
                }
            };
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
                self.asker.endpoint,
                pause.as_secs_f64()
            ));
            self.interrupt.sleep_until(Instant::now() + pause, KEPT)?;
        }
    }
}

/// What became of the body of a file.
enum Received {
    /// The file ends at `end`, `new` bytes of which just came; why there are no more, if there should be.
    Bytes { end: u64, new: u64, cut: Option<String> },
    /// The answer is not the file that was announced.
    Fault(String),
    /// The disk does not take it.
    Failed(std::io::Error),
}

/// Writes a body to a file whose first `from` bytes are there, and cuts the file off behind it.
fn received(
    reply: HubReply,
    mut file: File,
    from: u64,
    announced: &Announced,
    bar: &ProgressBar,
) -> Received {
    let (mut end, mut length) = (from, announced.length);
    match reply.range.filter(|_| reply.status() == 206) {
        Some((start, total)) if start != from || length.is_some_and(|length| length != total) => {
            return Received::Fault(format!(
                "the server answers with bytes from {start} of {total}; expected from {from} of {}",
                length.unwrap_or(total)
            ));
        }
        Some((_, total)) => length = Some(total),
        None => {
            // The server ignores ranges, and begins at the beginning.
            end = 0;
            let whole = reply.response.body().content_length();
            if let (Some(said), Some(there)) = (length, whole)
                && said != there
            {
                return Received::Fault(format!("the server sends {there} bytes; it announced {said}"));
            }
            length = length.or(whole);
        }
    }
    if reply.announced.etag != announced.etag {
        return Received::Fault("the file changed while it was fetched".into());
    }
    let begin = file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end)));
    if let Err(e) = begin {
        return Received::Failed(e);
    }
    let mut body = reply.response.into_body().into_reader();
    let (mut buffer, mut new, mut cut) = (vec![0; 1 << 16], 0, None);
    loop {
        bar.set_position(end);
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                cut = Some(e.to_string());
                break;
            }
        };
        if length.is_some_and(|length| end + n as u64 > length) {
            return Received::Fault(format!(
                "the server sends more than the {} bytes it announced",
                length.unwrap_or(0)
            ));
        }
        if let Err(e) = file.write_all(&buffer[..n]) {
            return Received::Failed(e);
        }
        end += n as u64;
        new += n as u64;
    }
    if cut.is_none() && length.is_some_and(|length| end < length) {
        cut = Some("the connection was cut".into());
    }
    match file.sync_data() {
        Ok(()) => Received::Bytes { end, new, cut },
        Err(e) => Received::Failed(e),
    }
}
