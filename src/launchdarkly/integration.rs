//! The integration whose calls are sent: the key under which LaunchDarkly has registered it, and
//! the shape of the requests that its manifest reads.
//!
//! [`manifest`] reads the registered manifest. From its JSON pointers [`template`] works out, once,
//! the request that they read back; [`action_words`] chooses the words of a request that is all
//! additions or all removals. Writing a call fills the template.

mod action_words;
mod manifest;
mod pointer;
mod template;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use manifest::Manifest;
pub use manifest::ManifestError;
use template::Template;

use crate::domain::{OperationsPerCall, SegmentCall};

/// The integration that is registered for this program.
const ZEOTAP: &str = "zeotap";
/// Its requests. Read once, though settings are declared several times.
static ZEOTAP_REQUESTS: LazyLock<RequestShape> = LazyLock::new(|| {
    let manifest = include_bytes!("integration/zeotap.json");
    RequestShape::from_manifest(manifest).expect("tests read it")
});

/// A registered integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    key: String,
    requests: RequestShape,
}

/// The shape of an integration's requests, as its manifest reads them; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestShape {
    template: Arc<Template>,
    manifest: Arc<[u8]>,
}

/// Why a text is no key of an integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not one or more of A-Z a-z 0-9 _ -")]
pub struct IntegrationKeyError;

impl RequestShape {
    /// Works out the requests that a manifest reads; `manifest` is the file as it stands in
    /// LaunchDarkly's registry of integrations.
    ///
    /// # Errors
    /// What is wrong with the manifest, and where; or what its requests cannot say.
    pub fn from_manifest(manifest: &[u8]) -> Result<Self, ManifestError> {
        let template = Template::new(&Manifest::read(manifest)?)?;
        Ok(Self {
            template: Arc::new(template),
            manifest: manifest.into(),
        })
    }

    /// The shape that belongs to a key, where it is built in.
    #[must_use]
    pub fn built_in(key: &str) -> Option<Self> {
        (key == ZEOTAP).then(|| ZEOTAP_REQUESTS.clone())
    }
}

impl Integration {
    /// Pairs a key with the shape of its requests.
    ///
    /// # Errors
    /// The key cannot be a part of a path and of a segment's key.
    pub fn new(key: &str, requests: RequestShape) -> Result<Self, IntegrationKeyError> {
        Self::check_key(key)?;
        Ok(Self {
            key: key.to_owned(),
            requests,
        })
    }

    /// Checks that a key can be one word of a path without any escaping.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_key(key: &str) -> Result<(), IntegrationKeyError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let fits = !key.is_empty() && key.bytes().all(legal);
        fits.then_some(()).ok_or(IntegrationKeyError)
    }

    /// The last part of the path of calls, and the first of every segment's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The manifest, as it was read.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.requests.manifest
    }

    /// Whether requests name the context kind of their members. If not, LaunchDarkly takes all for
    /// contexts of kind `user`.
    #[must_use]
    pub fn names_context_kind(&self) -> bool {
        self.requests.template.names_context_kind()
    }

    /// What one request may ask for.
    #[must_use]
    pub(super) fn operations(&self) -> OperationsPerCall {
        self.requests.template.operations()
    }

    /// The body of a call. None if no request can say what the call asks: it has no members, or
    /// several operations where a request has one, or a context kind that it cannot name.
    pub(super) fn body(&self, call: &SegmentCall) -> Option<Bytes> {
        self.requests.template.fill(call).map(Bytes::from)
    }
}
