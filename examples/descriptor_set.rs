//! Writes the contract's encoded descriptor set, the one that reflection serves, to standard
//! output: for linters, and for languages that generate their client from it.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(launchdarkly_connector::pb::DESCRIPTOR_SET)
}
