//! How a hub is asked: where it is, as whom, and with how much patience. The environment decides the first two.

use std::fmt;
use std::time::Duration;

use super::cache::{Cache, home, path_in};

/// What is said to who stops a download.
pub const KEPT: &str = "rerun the command to resume; complete downloads are kept";

/// Who asks.
pub(super) const USER_AGENT: (&str, &str) = ("trainer", env!("CARGO_PKG_VERSION"));
/// Longest wait for a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(30);
/// Longest wait for the beginning of an answer.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(120);
/// Longest time of one request; none takes more than a few MiB.
pub(super) const REQUEST: Duration = Duration::from_secs(600);
/// Longest time of one request for a whole file: what came by then is kept, and the next request goes on there.
pub(super) const DOWNLOAD: Duration = Duration::from_secs(6 * 3600);
/// Longest time without a byte in the middle of an answer.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// Tries of a request in a row that bring nothing.
pub(super) const TRIES: usize = 6;
/// The pause after the first of them.
pub(super) const FIRST_PAUSE_S: f64 = 0.5;

/// Which hub is asked, and as whom.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// The user's token.
    pub token: Option<Token>,
    /// What was downloaded before.
    pub cache: Cache,
}

/// Neither printed nor written.
#[derive(Clone)]
pub struct Token(pub(super) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[token]")
    }
}

impl HubSettings {
    /// The hub of `HF_ENDPOINT` (else huggingface.co), the token of `HF_TOKEN` or `HUGGING_FACE_HUB_TOKEN` (else what logging in
    /// left in `HF_TOKEN_PATH`, or in `token` beside the cache), and the cache of [`Cache::from_env`]. As in `huggingface_hub`,
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN` keeps the token back.
    pub fn from_env() -> Self {
        let given = |variable: &str| {
            let value = std::env::var(variable).ok().map(|value| value.trim().to_string());
            value.filter(|value| !value.is_empty())
        };
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let cache = Cache::from_env();
        let logged_in = || {
            let file = path_in("HF_TOKEN_PATH").unwrap_or_else(|| home().join("token"));
            let token = std::fs::read_to_string(file).ok()?;
            Some(token.trim().to_string()).filter(|token| !token.is_empty())
        };
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(given).or_else(logged_in);
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: token.filter(|_| !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")).map(Token),
            cache,
        }
    }
}

/// Whether the user forbade the network: `HF_HUB_OFFLINE`, or where that is not set `TRANSFORMERS_OFFLINE`.
pub fn offline() -> bool {
    let is_set = std::env::var_os("HF_HUB_OFFLINE").is_some_and(|value| !value.is_empty());
    is_true(if is_set { "HF_HUB_OFFLINE" } else { "TRANSFORMERS_OFFLINE" })
}

/// Whether a variable says yes, as `huggingface_hub` reads it.
fn is_true(variable: &str) -> bool {
    std::env::var(variable)
        .is_ok_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}
