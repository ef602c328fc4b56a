//! Listen addresses: an address, or a host name with the addresses it resolves to.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

/// The addresses of which one is listened on. A host name is resolved once, so that what was
/// checked is what is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    text: String,
    addresses: Vec<SocketAddr>,
}

impl Listen {
    /// In the order in which they are tried: those of IPv4 first, where most clients look.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether none of them can be reached from another machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|each| each.ip().is_loopback())
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            text: address.to_string(),
            addresses: vec![address],
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = host_and_port(text).ok_or_else(|| {
            format!(
                "`{text}` is not an address or a host name and a port, such as 127.0.0.1:50051, \
                 [::1]:50051 or localhost:50051"
            )
        })?;
        let found = (host, port).to_socket_addrs().map_err(|error| {
            format!("the host name of `{text}` cannot be resolved ({error}); correct it, or write an address")
        })?;
        resolved(text, found)
    }
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_name = !host.is_empty() && host.bytes().all(legal);
    Some((host, port.parse().ok()?)).filter(|_| is_name)
}

fn resolved(text: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Listen, String> {
    let mut addresses: Vec<_> = found.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    if addresses.is_empty() {
        return Err(format!("the host name of `{text}` has no address"));
    }
    Ok(Listen {
        text: text.to_owned(),
        addresses,
    })
}

/// As it was written.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(addresses: &[&str]) -> Listen {
        let found = addresses.iter().map(|address| address.parse().unwrap());
        resolved("name:1", found).unwrap()
    }

    #[test]
    fn a_host_name_stands_for_its_addresses() {
        let listen: Listen = "localhost:50051".parse().unwrap();
        assert!(listen.is_loopback());
        assert!(listen.addresses().iter().all(|each| each.port() == 50051));
        assert_eq!(listen.to_string(), "localhost:50051");
        for address in ["127.0.0.1:1", "[::1]:0"] {
            let listen: Listen = address.parse().unwrap();
            assert_eq!(listen.addresses(), [address.parse().unwrap()]);
        }
    }

    #[test]
    fn addresses_of_ipv4_are_tried_first() {
        let listen = name_of(&["[::1]:1", "127.0.0.1:1", "[::1]:1"]);
        let tried: Vec<_> = listen.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(tried, ["127.0.0.1:1", "[::1]:1"]);
        assert!(resolved("name:1", std::iter::empty()).is_err());
    }

    #[test]
    fn a_name_is_of_this_machine_alone_only_if_all_its_addresses_are() {
        assert!(name_of(&["127.0.0.1:1", "[::1]:1"]).is_loopback());
        assert!(!name_of(&["127.0.0.1:1", "192.0.2.1:1"]).is_loopback());
        assert!(!name_of(&["127.0.0.1:1", "[2001:db8::1]:1"]).is_loopback());
    }

    #[test]
    fn what_is_no_name_and_port_is_quoted_with_examples() {
        for wrong in [
            "",
            "localhost",
            ":50051",
            "50051",
            "local host:1",
            "http://localhost:1",
            "localhost:65536",
            "[::1:50051",
            "user@localhost:1",
        ] {
            let error = wrong.parse::<Listen>().unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
            assert!(error.contains("localhost:50051"), "{error}");
        }
        let error = "no-such-host.invalid:1".parse::<Listen>().unwrap_err();
        assert!(error.contains("cannot be resolved"), "{error}");
    }
}
