//! Where an address leads: its scheme, host and port, to which a token belongs.

use ureq::http::Uri;

/// Scheme, host and port of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` address; `None` for anything else.
    pub(super) fn of(address: &str) -> Option<Self> {
        let uri: Uri = address.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = uri.authority()?;
        // A name before the host hides where an address leads.
        if authority.as_str().contains('@') {
            return None;
        }
        Some(Self {
            scheme,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(default),
        })
    }

    /// Whether what is sent there can be read on the way.
    pub(super) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }
}

/// The address to which a `Location` of an answer from `from` leads.
pub(super) fn redirected(from: &str, location: &str) -> Option<String> {
    let uri: Uri = from.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let location = location.split('#').next()?.trim();
    Some(match location {
        "" => return None,
        _ if location.contains("://") => location.to_string(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => {
            let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |address: &str| Origin::of(address).unwrap();
        assert_eq!(of("https://huggingface.co/a"), of("HTTPS://HuggingFace.co:443/b?c"));
        for other in
            ["http://huggingface.co", "https://huggingface.co:444", "https://huggingface.co.evil.com"]
        {
            assert_ne!(of("https://huggingface.co"), of(other), "{other}");
        }
        for bad in ["ftp://a", "file:///etc/passwd", "a", "https://huggingface.co@evil.com/"] {
            assert_eq!(Origin::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_location_may_be_relative() {
        let from = "https://hub/org/name/resolve/main/a";
        for (location, expected) in [
            ("https://cdn/x?y", "https://cdn/x?y"),
            ("//cdn/x", "https://cdn/x"),
            ("/new/name", "https://hub/new/name"),
            ("b", "https://hub/org/name/resolve/main/b"),
        ] {
            assert_eq!(redirected(from, location).as_deref(), Some(expected));
        }
        assert_eq!(redirected(from, ""), None);
    }
}
