//! The files of TLS: what is read from them, and what is wrong with them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tokio_rustls::rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    clock,
    reload::{self, Contents},
};

/// The flags by which the files are named.
const CERTIFICATE: &str = "tls-cert";
const KEY: &str = "tls-key";
const CLIENT_CA: &str = "tls-client-ca";

/// Where the server's certificate, its key, and the authorities of callers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority, in PEM form.
    pub certificate: PathBuf,
    /// The private key of that certificate, in PEM form.
    pub key: PathBuf,
    /// Certificates of the authorities whose client certificates are accepted, in PEM form.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with one file, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {reason}")]
pub struct TlsFileError {
    /// The flag that names the file, without its dashes.
    pub flag: &'static str,
    /// Names the file.
    pub reason: String,
}

/// The server's certificate with its key.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: CertifiedKey,
    /// When the certificate expires.
    pub(super) expires: SystemTime,
}

/// Accepts the client certificates of some authorities.
pub(super) type ClientAuthorities = Arc<dyn ClientCertVerifier>;

/// All files as they were read.
#[derive(Debug)]
pub(super) struct TlsContents {
    pub(super) certificate: Contents,
    pub(super) key: Contents,
    pub(super) client_ca: Option<Contents>,
}

impl TlsFiles {
    pub(super) fn read(&self) -> TlsContents {
        TlsContents {
            certificate: reload::read(&self.certificate),
            key: reload::read(&self.key),
            client_ca: self.client_ca.as_deref().map(reload::read),
        }
    }

    /// Finds everything that is wrong with the files.
    #[must_use]
    pub fn problems(&self) -> Vec<TlsFileError> {
        let contents = self.read();
        let identity = self.identity(&contents.certificate, &contents.key, clock::now());
        let authorities = self.authorities(contents.client_ca.as_ref());
        let problems = identity.err().into_iter().flatten();
        problems.chain(authorities.err()).collect()
    }

    /// The certificate with its key.
    pub(super) fn identity(
        &self,
        certificate: &Contents,
        key: &Contents,
        now: SystemTime,
    ) -> Result<Identity, Vec<TlsFileError>> {
        let (chain, key) = match (self.chain(certificate), self.private_key(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        self.certified(chain, key, now).map_err(|error| vec![error])
    }

    fn chain(&self, contents: &Contents) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let broken = |why: String| self.certificate_problem(&why);
        certificates(contents, "the server's certificate").map_err(broken)
    }

    fn private_key(&self, contents: &Contents) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        let broken = |why: String| problem(KEY, &self.key, &why);
        let what = "name the file of the certificate's private key, in PEM form";
        let pem = contents
            .as_ref()
            .map_err(|error| broken(format!("cannot be read ({error}); {what}")))?;
        // What the parser says of a key is not passed on: it may quote it.
        PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
            broken(format!(
                "holds no private key in PEM form (PKCS #8, PKCS #1 or SEC1, not encrypted); {what}"
            ))
        })
    }

    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: SystemTime,
    ) -> Result<Identity, TlsFileError> {
        let expires = expiry(&chain[0]).map_err(|why| self.certificate_problem(&why))?;
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider);
        let key = certified.map_err(|error| self.unusable(&error))?;
        if expires <= now {
            return Err(self.certificate_problem(&format!(
                "expired on {}; put a new certificate and its key in the place of the old",
                date(expires)
            )));
        }
        Ok(Identity { key, expires })
    }

    fn unusable(&self, error: &Error) -> TlsFileError {
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certificate = self.certificate.display();
                problem(
                    KEY,
                    &self.key,
                    &format!(
                        "does not belong to the first certificate in `{certificate}`; name the key \
                         that this certificate was made with, and put the server's own certificate \
                         before those of its authorities"
                    ),
                )
            }
            Error::InvalidCertificate(_) => self.certificate_problem(&format!(
                "holds a certificate that cannot be used ({error}); have a new one made"
            )),
            _ => problem(
                KEY,
                &self.key,
                "holds a private key that cannot be used; use RSA of 2048 bits or more, ECDSA on \
                 P-256, P-384 or P-521, or Ed25519",
            ),
        }
    }

    fn certificate_problem(&self, why: &str) -> TlsFileError {
        problem(CERTIFICATE, &self.certificate, why)
    }

    /// The authorities whose client certificates are accepted, if there are any.
    pub(super) fn authorities(
        &self,
        contents: Option<&Contents>,
    ) -> Result<Option<ClientAuthorities>, TlsFileError> {
        let (Some(path), Some(contents)) = (&self.client_ca, contents) else {
            return Ok(None);
        };
        let broken = |why: String| problem(CLIENT_CA, path, &why);
        let what = "the authorities of client certificates";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(contents, what).map_err(broken)? {
            roots.add(certificate).map_err(|error| {
                broken(format!(
                    "holds a certificate that cannot be used ({error}); leave it out"
                ))
            })?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            // Another credential may identify the caller, and the policy may refuse one without.
            .allow_unauthenticated()
            .build();
        verifier
            .map(Some)
            .map_err(|error| broken(format!("cannot be used ({error})")))
    }
}

fn problem(flag: &'static str, path: &Path, why: &str) -> TlsFileError {
    let reason = format!("`{}` {why}", path.display());
    TlsFileError { flag, reason }
}

/// At least one certificate.
fn certificates(contents: &Contents, of: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let what = format!("name a file with {of} in PEM form");
    let pem = contents
        .as_ref()
        .map_err(|error| format!("cannot be read ({error}); {what}"))?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("holds no certificate in PEM form; {what}")),
        // What the parser says is not passed on: it may quote a key that is in the wrong file.
        Err(_) => Err(format!("is no file in PEM form; {what}")),
    }
}

/// A moment as people read it.
pub(super) fn date(at: SystemTime) -> String {
    // No date before the epoch can be written.
    httpdate::fmt_http_date(at.max(SystemTime::UNIX_EPOCH))
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| {
        format!("holds a certificate that cannot be read ({error}); have a new one made")
    })?;
    Ok(certificate.validity().not_after.to_datetime().into())
}
