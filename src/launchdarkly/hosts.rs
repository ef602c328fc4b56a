//! Hosts of LaunchDarkly: its own, or the one that an operator puts in their place.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::{domain::Instance, loopback::is_loopback};

/// A base address that an operator chose: `https`, or `http` to this very machine, since
/// access tokens travel there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// Why an address is refused as an [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not an absolute address.
    #[error("is not an address such as https://host:port")]
    Malformed,
    /// Neither `https` nor `http`.
    #[error("must start with https://, or with http:// for a loopback host")]
    Scheme,
    /// `http` to another machine.
    #[error("must be https unless the host is a loopback address, since it receives access tokens")]
    PlainText,
    /// A name or password before the host.
    #[error("must not hold a user name or password")]
    UserInfo,
    /// A query or fragment after the path.
    #[error("must not hold a query or a fragment")]
    Query,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(address: &str) -> Result<Self, EndpointError> {
        // `Uri` drops a fragment without a word.
        if address.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let uri: Uri = address.parse().map_err(|_| EndpointError::Malformed)?;
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let port_is_sound = authority.as_str() == authority.host() || authority.port().is_some();
        if authority.host().is_empty() || !port_is_sound {
            return Err(EndpointError::Malformed);
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(authority.host()) => {}
            Some("http") => return Err(EndpointError::PlainText),
            Some(_) => return Err(EndpointError::Scheme),
            None => return Err(EndpointError::Malformed),
        }
        Ok(Self(address.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Endpoint {
    /// Whether nothing sent there is encrypted, which [`FromStr`] allows on loopback only.
    pub(super) fn is_plain_text(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// Whether it is on this very machine, where no proxy would find it.
    pub(super) fn is_loopback(&self) -> bool {
        let uri = self.0.parse::<Uri>();
        uri.is_ok_and(|uri| uri.host().is_some_and(is_loopback))
    }
}

/// The hosts to call.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    replacement: Option<Endpoint>,
}

impl Hosts {
    /// LaunchDarkly's hosts, or `replacement` for every one of them.
    pub(super) fn new(replacement: Option<Endpoint>) -> Self {
        Self { replacement }
    }

    /// Base address of an instance's REST API.
    pub(super) fn rest(&self, instance: Instance) -> &str {
        self.replacement
            .as_ref()
            .map_or(rest(instance), |endpoint| &endpoint.0)
    }

    /// Base address that client-side SDKs of an instance call; none where it is not known.
    pub(super) fn client_sdk(&self, instance: Instance) -> Option<&str> {
        match &self.replacement {
            Some(endpoint) => Some(&endpoint.0),
            None => client_sdk(instance),
        }
    }
}

fn rest(instance: Instance) -> &'static str {
    match instance {
        Instance::Commercial => "https://app.launchdarkly.com",
        Instance::Eu => "https://app.eu.launchdarkly.com",
        Instance::Federal => "https://app.launchdarkly.us",
    }
}

fn client_sdk(instance: Instance) -> Option<&'static str> {
    match instance {
        Instance::Commercial => Some("https://clientsdk.launchdarkly.com"),
        // Nothing can be delivered there, so nothing is guessed about their other hosts.
        Instance::Eu | Instance::Federal => None,
    }
}

/// Whether an instance has synced segments, which is what identifiers are delivered to.
pub(super) fn has_synced_segments(instance: Instance) -> bool {
    match instance {
        Instance::Commercial => true,
        Instance::Eu | Instance::Federal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_or_on_this_machine() {
        for address in [
            "https://ld.example.com",
            "https://ld.example.com:8443/base",
            "http://127.0.0.1:4000",
            "http://127.9.9.9",
            "http://[::1]:4000",
            "http://localhost:4000/",
        ] {
            assert!(address.parse::<Endpoint>().is_ok(), "{address}");
        }
    }

    #[test]
    fn an_endpoint_on_this_machine_is_known_by_its_host() {
        let is_loopback = |address: &str| address.parse::<Endpoint>().unwrap().is_loopback();
        for address in [
            "http://127.0.0.1:4000",
            "https://localhost",
            "https://127.9.9.9:8443/base",
            "https://[::1]",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "https://ld.example.com",
            "https://10.0.0.1",
            "https://localhost.example",
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn an_endpoint_that_could_leak_a_token_is_refused() {
        use EndpointError::*;
        for (address, why) in [
            ("", Malformed),
            ("ld.example.com", Malformed),
            ("/path", Malformed),
            ("https://", Malformed),
            ("https://:443", Malformed),
            ("https://host:99999", Malformed),
            ("https://host name", Malformed),
            ("http://127.0.0.1\\.example.com", Malformed),
            ("ftp://127.0.0.1", Scheme),
            ("http://ld.example.com", PlainText),
            ("http://10.0.0.1", PlainText),
            ("http://0.0.0.0", PlainText),
            ("http://127.0.0.1.example.com", PlainText),
            ("http://localhost.example.com", PlainText),
            ("http://127.0.0.1@example.com", UserInfo),
            ("https://user:password@host", UserInfo),
            ("https://host/?a=b", Query),
            ("https://host/#a", Query),
        ] {
            assert_eq!(address.parse::<Endpoint>(), Err(why), "{address}");
        }
    }

    #[test]
    fn a_replacement_stands_for_every_host() {
        let hosts = Hosts::new(Some("http://127.0.0.1:4000/".parse().unwrap()));
        for instance in [Instance::Commercial, Instance::Eu, Instance::Federal] {
            assert_eq!(hosts.rest(instance), "http://127.0.0.1:4000");
            assert_eq!(hosts.client_sdk(instance), Some("http://127.0.0.1:4000"));
        }
    }

    #[test]
    fn instances_have_hosts_of_their_own() {
        let hosts = Hosts::new(None);
        let rest = [Instance::Commercial, Instance::Eu, Instance::Federal].map(|i| hosts.rest(i));
        assert_eq!(
            rest,
            [
                "https://app.launchdarkly.com",
                "https://app.eu.launchdarkly.com",
                "https://app.launchdarkly.us"
            ]
        );
    }
}
