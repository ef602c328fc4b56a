//! TLS of the gRPC listener: its files, its handshakes, and its certificate's renewal.
//!
//! A connection keeps what it was opened with; a reload changes what the next one meets.

mod files;
mod handshakes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        server::{NoServerSessionStorage, WebPkiClientVerifier},
        sign::SingleCertAndKey,
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use tokio_stream::Stream;
use tracing::{error, info, warn};

use self::{
    files::{ClientAuthorities, Identity, TlsContents, date},
    handshakes::CurrentConfig,
};
use crate::{
    clock,
    metrics::Metrics,
    reload::{ReloadRequests, WatchedFiles},
};

pub(crate) use files::{TlsFileError, TlsFiles};

/// How long before the certificate expires the log begins to warn. Ours: those who renew by hand
/// get two weeks, and what renews by itself has done so long before.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * DAY.as_secs());
/// How often it warns.
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// What is read again, as metrics and the log name it.
const CERTIFICATE: &str = "tls_certificate";
const CLIENT_CA: &str = "tls_client_ca";
/// The one protocol that is spoken.
const ALPN_H2: &[u8] = b"h2";

/// TLS of a listener, as its files were read last.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    /// What the files held when they were read first.
    contents: TlsContents,
    parts: Parts,
    config: CurrentConfig,
}

/// What a configuration is made of. Each part is replaced by itself.
#[derive(Debug, Clone)]
struct Parts {
    identity: Identity,
    authorities: Option<ClientAuthorities>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsFileError> {
        let contents = files.read();
        let identity = files.identity(&contents.certificate, &contents.key, clock::now());
        let parts = Parts {
            identity: identity.map_err(|mut errors| errors.remove(0))?,
            authorities: files.authorities(contents.client_ca.as_ref())?,
        };
        let config = Arc::new(RwLock::new(parts.config()));
        Ok(Self {
            files,
            contents,
            parts,
            config,
        })
    }

    /// Connections whose handshake is done, and failures to accept.
    pub(crate) fn connections<I, C>(
        &self,
        incoming: I,
    ) -> impl Stream<Item = io::Result<TlsStream<C>>> + Send + use<I, C>
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        handshakes::handshakes(incoming, Arc::clone(&self.config))
    }

    /// Shows in metrics what there is before the first reload.
    pub(crate) fn show_in(&self, metrics: &Metrics) {
        metrics.watch_reloads(CERTIFICATE);
        if self.files.client_ca.is_some() {
            metrics.watch_reloads(CLIENT_CA);
        }
        metrics.certificate_expires(self.parts.identity.expires);
    }

    /// Takes up changed files, and watches the certificate's expiry, for as long as it is polled.
    pub(crate) async fn keep_current(self, requests: ReloadRequests, metrics: Metrics) {
        let Self {
            files,
            contents,
            mut parts,
            config,
        } = self;
        let pair = vec![files.certificate.clone(), files.key.clone()];
        let read = [&contents.certificate, &contents.key];
        let mut pair = WatchedFiles::new(pair, &read, requests.clone());
        let authorities = files.client_ca.iter().cloned().collect();
        let read: Vec<_> = contents.client_ca.iter().collect();
        let mut authorities = WatchedFiles::new(authorities, &read, requests);
        // It holds the key.
        drop(contents);

        let mut daily = tokio::time::interval(DAY);
        loop {
            let (what, taken) = tokio::select! {
                _ = daily.tick() => {
                    warn_of_expiry(&parts.identity);
                    continue;
                }
                contents = pair.changed() => {
                    let read = files.identity(&contents[0], &contents[1], clock::now());
                    let taken = read.map(|identity| parts.identity = identity);
                    (CERTIFICATE, taken)
                }
                contents = authorities.changed(), if files.client_ca.is_some() => {
                    let read = files.authorities(contents.first());
                    let taken = read.map(|authorities| parts.authorities = authorities);
                    (CLIENT_CA, taken.map_err(|error| vec![error]))
                }
            };
            match taken {
                Ok(()) => {
                    *config.write() = parts.config();
                    metrics.reloaded(what);
                    metrics.certificate_expires(parts.identity.expires);
                    let expires = date(parts.identity.expires);
                    info!(what, expires, "files of TLS were read again");
                }
                Err(errors) => {
                    metrics.reload_failed(what);
                    for error in errors {
                        error!(
                            what,
                            %error,
                            "files of TLS cannot be used; what was read before stays in use"
                        );
                    }
                }
            }
        }
    }
}

impl Parts {
    fn config(&self) -> Arc<ServerConfig> {
        let authorities = self.authorities.clone();
        let verifier = authorities.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13, &TLS12])
                .expect("the provider has cipher suites for both")
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.identity.key.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // No session is resumed: callers keep their connections for hours, and each new one is to
        // show a certificate that is valid then.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }
}

fn warn_of_expiry(identity: &Identity) {
    let expires = date(identity.expires);
    match identity.expires.duration_since(clock::now()) {
        Ok(left) if left > EXPIRY_WARNING => {}
        Ok(left) => {
            let days = left.as_secs() / DAY.as_secs();
            warn!(
                expires,
                days, "the certificate of --tls-cert expires soon: renew it"
            );
        }
        Err(_) => warn!(
            expires,
            "the certificate of --tls-cert has expired: renew it"
        ),
    }
}
