//! A language model behind an OpenAI-compatible chat-completions endpoint: one question, one answer, and everything
//! that can go wrong in between.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::exchanges;
use super::exchanges::{Exchange, Exchanges};
use super::redact::redact;
use crate::bail_input;
use crate::data::conversation::Message;
use crate::error::InputError;
use crate::http;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::EndpointSection;

/// Largest answer that is read.
const LARGEST_BODY: u64 = 64 << 20;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The conversation so far.
    pub messages: &'a [Message],
    /// In place of the endpoint's.
    pub temperature: Option<f64>,
    /// Tells apart several askings of the same question.
    pub sample: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// What was said; may be empty where all tokens went into thoughts.
    pub text: String,
    /// Whether it ends because the tokens ran out (`finish_reason` is `length`).
    pub cut_off: bool,
    /// The server's count, where it gives one.
    pub usage: Option<Usage>,
}

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the question.
    pub prompt_tokens: u64,
    /// Of the answer, thoughts included.
    pub completion_tokens: u64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// What was asked and what it cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spend {
    /// Requests that were sent, failed ones included.
    pub requests: u64,
    /// Those that failed and were tried again or given up.
    pub failed: u64,
    /// Questions that the exchanges already answered.
    pub cache_hits: u64,
    /// Tokens of the answers that came by request.
    pub sent: Usage,
    /// Tokens of all answers, those of earlier commands included.
    pub all: Usage,
    /// Answers, however they came.
    pub answers: u64,
    /// Answers without a count of their tokens.
    pub uncounted: u64,
    /// Answers that were cut off at `max_tokens`.
    pub cut_off: u64,
}

/// Counts over all answers that a result rests on, whenever they were asked for: the same after a rerun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Number of answers.
    pub answers: u64,
    /// Tokens of the questions.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
    /// Answers whose tokens the server did not count.
    pub answers_without_usage: u64,
    /// Answers that ended because the tokens ran out.
    pub answers_cut_off: u64,
    /// At the prices of the recipe; absent without prices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<f64>,
}

/// The key; neither printed nor written.
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// A model that can be asked.
#[derive(Debug)]
pub struct Endpoint {
    settings: EndpointSection,
    key: Option<Key>,
    agent: ureq::Agent,
    exchanges: Arc<Exchanges>,
    interrupt: Interrupt,
    state: Mutex<State>,
    /// Keys of the questions on the way, and a bell that rings when one is answered.
    asking: (Mutex<HashSet<String>>, Condvar),
}

#[derive(Debug)]
struct State {
    spend: Spend,
    /// When the next request may be sent.
    free_at: Instant,
    jitter: ChaCha8Rng,
    refuses: Refuses,
}

/// Parameters that the server was found to refuse: OpenAI's newer models call the limit `max_completion_tokens` and
/// take no temperature.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Refuses {
    max_tokens: bool,
    temperature: bool,
}

/// A request that brought no answer.
struct Fault {
    message: String,
    again: bool,
    wait: Option<Duration>,
}

impl Fault {
    fn passing(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), again: true, wait: None }
    }

    fn lasting(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), again: false, wait: None }
    }
}

/// The right to ask a question; given back when it is dropped.
struct Turn<'a> {
    endpoint: &'a Endpoint,
    key: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let (asking, bell) = &self.endpoint.asking;
        asking.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
        bell.notify_all();
    }
}

/// What came back over HTTP.
struct Reply {
    status: u16,
    retry_after: Option<String>,
    body: String,
}

impl Endpoint {
    /// An endpoint whose exchanges go to a file. Reads the key from the environment; asks nothing. `section` is how
    /// error messages call the settings, `seed` decides the pauses between tries.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for settings that do not serve or a file that is not one of exchanges.
    pub fn open(
        settings: &EndpointSection,
        section: &str,
        exchanges: Arc<Exchanges>,
        seed: u64,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        must_serve(settings, section)?;
        let key = std::env::var(&settings.key_env).ok().filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            bail_input!(
                "{}: the key in this environment variable has characters that a key cannot have",
                settings.key_env
            );
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout_s)));
        if http::is_local(&settings.base_url) {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            key: key.map(Key),
            exchanges,
            interrupt: interrupt.clone(),
            state: Mutex::new(State {
                spend: Spend::default(),
                free_at: Instant::now(),
                jitter: ChaCha8Rng::seed_from_u64(seed),
                refuses: Refuses::default(),
            }),
            asking: Default::default(),
            settings: settings.clone(),
        })
    }

    /// Its settings.
    pub fn settings(&self) -> &EndpointSection {
        &self.settings
    }

    /// The file of its exchanges.
    pub fn exchanges(&self) -> &Exchanges {
        &self.exchanges
    }

    /// What was asked so far.
    pub fn spend(&self) -> Spend {
        self.state().spend
    }

    /// What all answers so far cost, whenever they were asked for.
    pub fn account(&self) -> Account {
        let spend = self.spend();
        Account {
            answers: spend.answers,
            prompt_tokens: spend.all.prompt_tokens,
            completion_tokens: spend.all.completion_tokens,
            answers_without_usage: spend.uncounted,
            answers_cut_off: spend.cut_off,
            cost: self.cost(spend.all),
        }
    }

    /// What this command asked, in a line.
    pub fn summary(&self) -> String {
        let spend = self.spend();
        let cost = self.cost(spend.sent).map(|c| format!(", cost {c:.4}")).unwrap_or_default();
        let cut_off = match spend.cut_off {
            0 => String::new(),
            n => format!("; {n} answers were cut off at max_tokens = {}", self.settings.max_tokens),
        };
        format!(
            "{}: {} requests ({} failed), {} answers from {}, {} + {} tokens{cost}{cut_off}",
            self.settings.model,
            spend.requests,
            spend.failed,
            spend.cache_hits,
            self.exchanges.path().display(),
            spend.sent.prompt_tokens,
            spend.sent.completion_tokens
        )
    }

    /// What tokens cost; `None` without prices.
    pub fn cost(&self, usage: Usage) -> Option<f64> {
        let EndpointSection { input_price, output_price, .. } = self.settings;
        let cost = usage.prompt_tokens as f64 * input_price + usage.completion_tokens as f64 * output_price;
        (input_price > 0.0 || output_price > 0.0).then_some(cost / 1e6)
    }

    /// The answer to a question: an earlier one, or the first that comes through.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; what the server says to a request that it will never answer; after
    /// `tries` requests, what went wrong with the last.
    pub fn complete(&self, ask: &Ask) -> Result<ChatAnswer> {
        let key = exchanges::key(&self.settings.base_url, &self.body(ask, Refuses::default()), ask.sample);
        let _turn = self.alone_with(&key);
        if let Some(known) = self.exchanges.find(&key) {
            let unread = |fault: Fault| anyhow!("{}: {}", self.exchanges.path().display(), fault.message);
            let answer = read(&known).map_err(unread)?;
            self.state().spend.cache_hits += 1;
            return Ok(self.counted(answer));
        }
        let mut last = String::new();
        for attempt in 0..self.settings.tries {
            match self.request(ask, &key)? {
                Ok(answer) => {
                    let mut state = self.state();
                    state.spend.sent.add(answer.usage.unwrap_or_default());
                    drop(state);
                    return Ok(self.counted(answer));
                }
                Err(Fault { message, again: false, .. }) => bail!("{}: {message}", self.settings.base_url),
                Err(fault) => {
                    if attempt + 1 < self.settings.tries {
                        self.pause(attempt, &fault)?;
                    }
                    last = fault.message;
                }
            }
        }
        bail!(
            "{}: no answer after {} tries; the last one: {last}",
            self.settings.base_url,
            self.settings.tries
        )
    }

    /// Waits while another thread asks the same: one of them asks, the other finds the answer.
    fn alone_with<'a>(&'a self, key: &'a str) -> Turn<'a> {
        let (asking, bell) = &self.asking;
        let asking = asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asking =
            bell.wait_while(asking, |keys| keys.contains(key)).unwrap_or_else(PoisonError::into_inner);
        asking.insert(key.to_string());
        Turn { endpoint: self, key }
    }

    fn counted(&self, answer: ChatAnswer) -> ChatAnswer {
        let spend = &mut self.state().spend;
        spend.answers += 1;
        spend.all.add(answer.usage.unwrap_or_default());
        spend.uncounted += u64::from(answer.usage.is_none());
        spend.cut_off += u64::from(answer.cut_off);
        answer
    }

    /// One request, noted among the exchanges; with other parameters where the server refuses some.
    fn request(&self, ask: &Ask, key: &str) -> Result<Result<ChatAnswer, Fault>> {
        loop {
            let refuses = self.state().refuses;
            let body = self.body(ask, refuses);
            self.take_turn()?;
            let (clock, time) = (Instant::now(), SystemTime::now());
            self.state().spend.requests += 1;
            let outcome = self.send(&body)?;
            let found = outcome.and_then(|value| read(&value).map(|answer| (answer, value)));
            let mut exchange = Exchange {
                key: key.into(),
                time: time.duration_since(UNIX_EPOCH).map(|d| d.as_secs_f64()).unwrap_or_default(),
                elapsed_s: clock.elapsed().as_secs_f64(),
                base_url: self.settings.base_url.clone(),
                sample: ask.sample,
                request: body,
                response: None,
                usage: None,
                error: None,
            };
            let result = match found {
                Ok((answer, response)) => {
                    exchange.usage = response.get("usage").filter(|u| !u.is_null()).cloned();
                    exchange.response = Some(response);
                    Ok(answer)
                }
                Err(fault) => {
                    self.state().spend.failed += 1;
                    exchange.error = Some(fault.message.clone());
                    Err(fault)
                }
            };
            self.exchanges.append(exchange)?;
            match result {
                Err(fault) if !fault.again && self.learns(refuses, &fault.message) => {}
                other => return Ok(other),
            }
        }
    }

    /// Whether a refusal names a parameter that can be sent in another way.
    fn learns(&self, sent: Refuses, message: &str) -> bool {
        let refused = message.starts_with("HTTP 400");
        let now = Refuses {
            max_tokens: sent.max_tokens || (refused && message.contains("max_completion_tokens")),
            temperature: sent.temperature || (refused && message.contains("'temperature'")),
        };
        let mut state = self.state();
        state.refuses.max_tokens |= now.max_tokens;
        state.refuses.temperature |= now.temperature;
        now != sent
    }

    fn body(&self, ask: &Ask, refuses: Refuses) -> Value {
        let limit = if refuses.max_tokens { "max_completion_tokens" } else { "max_tokens" };
        let mut body = json!({
            "model": self.settings.model,
            "messages": ask.messages,
            limit: self.settings.max_tokens,
        });
        if !refuses.temperature {
            body["temperature"] = json!(ask.temperature.unwrap_or(self.settings.temperature));
        }
        body
    }

    /// Sends a body and reads the JSON that comes back.
    fn send(&self, body: &Value) -> Result<Result<Value, Fault>> {
        let url = format!("{}/chat/completions", self.settings.base_url.trim_end_matches('/'));
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(Key(key)) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = body.to_string();
        let reply = self.interrupt.or_leave(&self.hint(), move || -> Result<Reply, ureq::Error> {
            let mut response = request.send(body)?;
            let header = response.headers().get("retry-after");
            let retry_after = header.and_then(|value| value.to_str().ok()).map(str::to_string);
            let body =
                response.body_mut().with_config().limit(LARGEST_BODY).lossy_utf8(true).read_to_string()?;
            Ok(Reply { status: response.status().as_u16(), retry_after, body })
        })?;
        Ok(match reply {
            Ok(reply) => self.judge(&reply),
            Err(e) if http::lasts(&e) => Err(Fault::lasting(self.redacted(&e.to_string()))),
            Err(e) => Err(Fault::passing(self.redacted(&e.to_string()))),
        })
    }

    fn judge(&self, Reply { status, retry_after, body }: &Reply) -> Result<Value, Fault> {
        // The key is looked for in what the text means: JSON can write it in many ways.
        let sent = serde_json::from_str::<Value>(body);
        let parsed = sent.as_ref().map(|value| self.redacted_value(value.clone()));
        let shown = || match (&parsed, &sent) {
            (Ok(value), Ok(sent)) if value != sent => excerpt(&value.to_string()),
            _ => excerpt(&self.redacted(body)),
        };
        match status {
            200..=299 => {}
            401 | 403 if self.key.is_none() => {
                return Err(Fault::lasting(format!(
                    "HTTP {status}: {}; the environment variable {} holds no key",
                    shown(),
                    self.settings.key_env
                )));
            }
            status if http::passes(*status) => {
                let wait = retry_after.as_deref().and_then(http::retry_after);
                return Err(Fault { wait, ..Fault::passing(format!("HTTP {status}: {}", shown())) });
            }
            _ => return Err(Fault::lasting(format!("HTTP {status}: {}", shown()))),
        }
        match &parsed {
            Ok(value) => Ok(value.clone()),
            Err(e) => Err(Fault::passing(format!("no JSON ({e}): {}", shown()))),
        }
    }

    /// Waits for the place that the limit on requests a minute leaves.
    fn take_turn(&self) -> Result<()> {
        let turn = {
            let mut state = self.state();
            let turn = state.free_at.max(Instant::now());
            if self.settings.requests_per_minute > 0.0 {
                let apart = Duration::try_from_secs_f64(60.0 / self.settings.requests_per_minute);
                state.free_at = apart.ok().and_then(|apart| turn.checked_add(apart)).unwrap_or(turn);
            }
            turn
        };
        self.interrupt.sleep_until(turn, &self.hint())
    }

    /// Waits before the next try: what the server asks for, or twice as long as the last time, give or take.
    fn pause(&self, attempt: usize, fault: &Fault) -> Result<()> {
        let jitter = self.state().jitter.random_range(0.5..=1.0);
        let wait = http::pause(attempt, self.settings.backoff_s, jitter, fault.wait);
        if wait.as_secs_f64() > http::LONGEST_WAIT_S {
            bail!(
                "{}: {}; the server asks to wait {:.0} s: rerun the command after that time; answers so far are kept",
                self.settings.base_url,
                fault.message,
                wait.as_secs_f64()
            );
        }
        progress::detail(format_args!(
            "{}: {}; trying again in {:.1} s",
            self.settings.base_url,
            fault.message,
            wait.as_secs_f64()
        ));
        self.interrupt.sleep_until(Instant::now() + wait, &self.hint())
    }

    fn hint(&self) -> String {
        format!("answers so far are in {}; rerun the command to resume", self.exchanges.path().display())
    }

    /// Text of a server without the key, should it repeat it.
    fn redacted(&self, text: &str) -> String {
        match &self.key {
            Some(Key(key)) => redact(text, key),
            None => text.to_string(),
        }
    }

    /// A document of a server without the key, in every name and value.
    fn redacted_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redacted(&text)),
            Value::Array(list) => list.into_iter().map(|one| self.redacted_value(one)).collect(),
            Value::Object(map) => map
                .into_iter()
                .map(|(name, value)| (self.redacted(&name), self.redacted_value(value)))
                .collect(),
            other => other,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That settings name a server and a model, and are in range.
///
/// # Errors
/// An [`crate::error::InputError`]. `section` is what it calls the settings.
pub fn must_serve(settings: &EndpointSection, section: &str) -> Result<()> {
    let mut faults = settings.faults(section);
    if settings.base_url.is_empty() || settings.model.is_empty() {
        faults.push(format!(
            "{section}.base_url = {:?}, {section}.model = {:?}: expected both, such as \
             http://localhost:8000/v1 and the model's name there",
            settings.base_url, settings.model
        ));
    }
    InputError::unless_empty(faults)
}

/// The beginning of a body, on one line.
fn excerpt(body: &str) -> String {
    let line: String = body.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "an empty answer".into(),
        None => line,
    }
}

/// The first choice of a chat completion. An answer without text is one only where its tokens ran out.
fn read(body: &Value) -> Result<ChatAnswer, Fault> {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let cut_off = choice["finish_reason"] == "length";
    let text = match (&message["content"], cut_off) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, true) if message.is_object() => String::new(),
        _ => {
            return Err(Fault::passing(format!(
                "no choices[0].message.content: {}",
                excerpt(&body.to_string())
            )));
        }
    };
    let count = |key: &str| body["usage"][key].as_u64();
    let usage = count("prompt_tokens").zip(count("completion_tokens"));
    let usage = usage.map(|(prompt_tokens, completion_tokens)| Usage { prompt_tokens, completion_tokens });
    Ok(ChatAnswer { text, cut_off, usage })
}
