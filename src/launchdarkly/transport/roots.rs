//! Root certificates: those that the operator trusts beside the system's.

use std::fmt;

use reqwest::{Certificate, Client};

use super::error::with_causes;

/// Certificates of certification authorities, in PEM. There is at least one, and each can be used.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots(Vec<u8>);

impl Roots {
    /// Reads certificates.
    ///
    /// # Errors
    /// In words, if there is none, or one that cannot be used.
    pub fn from_pem(pem: Vec<u8>) -> Result<Self, String> {
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| with_causes(&error))?;
        if certificates.is_empty() {
            return Err("there is no certificate in PEM form in it".to_owned());
        }
        // Only a client finds out whether TLS can use them.
        let client = Client::builder().tls_certs_only(certificates).build();
        client.map_err(|error| with_causes(&error))?;
        Ok(Self(pem))
    }

    pub(super) fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        assert!(Roots::from_pem(good.pem().into()).is_ok());
        for wrong in [
            String::new(),
            "no certificate".into(),
            key.serialize_pem(),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            good.pem().replace("-----END", "-----ENDE"),
        ] {
            assert!(Roots::from_pem(wrong.clone().into()).is_err(), "{wrong}");
        }
    }
}
