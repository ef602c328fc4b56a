//! Egress: the proxy that calls go through, and the certificates that are trusted.

use std::{fmt, str::FromStr};

use http::Uri;
use secrecy::{ExposeSecret, SecretString};

use super::transport::roots::Roots;

/// The way that calls take to LaunchDarkly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// What tunnels them (HTTP `CONNECT`); it sees host names, and nothing that is encrypted.
    pub proxy: Option<EgressProxy>,
    /// Certificates that are trusted for LaunchDarkly's hosts and the proxy, beside the system's.
    pub roots: Option<Roots>,
}

/// A proxy's URL. Its user name and password are shown by nothing.
#[derive(Clone)]
pub struct EgressProxy(SecretString);

/// Why a URL is refused as an [`EgressProxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressProxyError {
    /// Not an absolute URL.
    #[error("is not a URL such as http://proxy.example.com:3128")]
    Malformed,
    /// Another kind of proxy.
    #[error("must start with http:// or https://, since other kinds of proxies are not spoken")]
    Scheme,
    /// More than a host and port.
    #[error("must not hold a path, a query or a fragment")]
    Path,
}

impl FromStr for EgressProxy {
    type Err = EgressProxyError;

    fn from_str(url: &str) -> Result<Self, EgressProxyError> {
        // `Uri` drops a fragment without a word.
        if url.contains(['?', '#']) {
            return Err(EgressProxyError::Path);
        }
        let uri: Uri = url.parse().map_err(|_| EgressProxyError::Malformed)?;
        let authority = uri.authority().ok_or(EgressProxyError::Malformed)?;
        let (_, place) = user_info(authority.as_str());
        let port_is_sound = place == authority.host() || authority.port().is_some();
        if authority.host().is_empty() || !port_is_sound {
            return Err(EgressProxyError::Malformed);
        }
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) => return Err(EgressProxyError::Scheme),
            None => return Err(EgressProxyError::Malformed),
        }
        if !matches!(uri.path(), "" | "/") {
            return Err(EgressProxyError::Path);
        }
        Ok(Self(url.into()))
    }
}

impl EgressProxy {
    /// Whether a user name or password stands in the URL.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        let (_, rest) = self.split();
        user_info(rest).0.is_some()
    }

    /// All of it, for the one place that connects. Never log or show what this returns.
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Its scheme, and what follows.
    fn split(&self) -> (&str, &str) {
        self.expose()
            .split_once("://")
            .expect("a URL without a scheme is refused")
    }
}

/// The user name and password of an authority, if there are any, and the rest of it.
fn user_info(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    }
}

impl fmt::Display for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.split();
        write!(f, "{scheme}://{}", user_info(rest).1)
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EgressProxy({self})")
    }
}

impl PartialEq for EgressProxy {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for EgressProxy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_with_or_without_credentials_and_shows_none_of_them() {
        for (url, shown, has_credentials) in [
            ("http://proxy:3128", "http://proxy:3128", false),
            (
                "https://proxy.example.com/",
                "https://proxy.example.com/",
                false,
            ),
            ("http://[::1]:3128", "http://[::1]:3128", false),
            ("http://user:canary@proxy:3128", "http://proxy:3128", true),
            ("http://canary@proxy", "http://proxy", true),
            ("http://u:canary%40x@proxy:1/", "http://proxy:1/", true),
        ] {
            let proxy: EgressProxy = url.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("EgressProxy({shown})"));
            assert_eq!(proxy.has_credentials(), has_credentials, "{url}");
        }
    }

    #[test]
    fn what_is_no_such_proxy_is_refused() {
        use EgressProxyError::*;
        for (url, why) in [
            ("", Malformed),
            ("proxy:3128", Malformed),
            ("proxy", Malformed),
            ("http://", Malformed),
            ("http://proxy:99999", Malformed),
            ("http://user@", Malformed),
            ("socks5://proxy:1080", Scheme),
            ("http://proxy/path", Path),
            ("http://proxy/?a=b", Path),
            ("http://proxy#a", Path),
        ] {
            assert_eq!(url.parse::<EgressProxy>(), Err(why), "{url}");
        }
    }
}
