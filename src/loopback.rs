//! Loopback hosts: what is sent to one does not leave this machine.

use std::net::IpAddr;

/// Whether the host of a URL is a loopback address, or `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        || host.eq_ignore_ascii_case("localhost")
}
