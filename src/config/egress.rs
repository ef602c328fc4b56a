//! The flags of the way out to LaunchDarkly.
//!
//! A proxy's URL may hold a password, and a flag's value can be read by everyone on the machine
//! for as long as the process runs; a variable's cannot. So where the URL came from matters, which
//! clap's derived code does not keep.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource, value_parser};
use secrecy::{ExposeSecret, SecretString};

use super::check::Check;
use crate::launchdarkly::{Egress, EgressProxy, Roots};

const PROXY: &str = "egress-proxy";
const CA_FILE: &str = "ca-file";

/// How calls leave.
#[derive(Debug, Clone, Default)]
pub struct EgressArgs {
    proxy: Option<SecretString>,
    /// Whether the URL stands in the process's arguments.
    proxy_is_public: bool,
    ca_file: Option<PathBuf>,
}

impl Args for EgressArgs {
    fn augment_args(command: Command) -> Command {
        let proxy = Arg::new(PROXY)
            .long(PROXY)
            .env("CONNECTOR_EGRESS_PROXY")
            .hide_env_values(true)
            .value_name("URL")
            .help(
                "Proxy through which LaunchDarkly is called, http or https; a user name and \
                 password in it are taken from the variable alone",
            );
        let ca_file = Arg::new(CA_FILE)
            .long(CA_FILE)
            .env("CONNECTOR_CA_FILE")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(
                "Certificates in PEM form that LaunchDarkly's hosts and the proxy are trusted by \
                 too, beside the system's",
            );
        command.arg(proxy).arg(ca_file)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EgressArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let proxy = matches.get_one::<String>(PROXY);
        Ok(Self {
            proxy: proxy.map(|url| SecretString::from(url.as_str())),
            proxy_is_public: matches.value_source(PROXY) == Some(ValueSource::CommandLine),
            ca_file: matches.get_one(CA_FILE).cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl EgressArgs {
    pub(super) fn check_into(&self, to: &mut Egress, check: &mut Check) {
        if let Some(url) = &self.proxy {
            let proxy = |url: &str| self.proxy(url).map(Some);
            check.set(&mut to.proxy, PROXY, url.expose_secret(), proxy);
        }
        if let Some(path) = &self.ca_file {
            let shown = path.display().to_string();
            let roots = |shown: &str| roots(path, shown).map(Some);
            check.set(&mut to.roots, CA_FILE, &shown, roots);
        }
    }

    /// Nothing of the URL is quoted: somebody may have put a password into it.
    fn proxy(&self, url: &str) -> Result<EgressProxy, String> {
        let proxy: EgressProxy = url
            .parse()
            .map_err(|error| format!("{error}; write it like http://proxy.example.com:3128"))?;
        if self.proxy_is_public && proxy.has_credentials() {
            return Err(
                "holds a user name or password, which everyone on this machine can read in a \
                 flag; put the URL into the variable instead"
                    .to_owned(),
            );
        }
        Ok(proxy)
    }
}

fn roots(path: &Path, shown: &str) -> Result<Roots, String> {
    let pem = std::fs::read(path).map_err(|error| {
        format!("`{shown}` cannot be read ({error}); name a file of certificates in PEM form")
    })?;
    Roots::from_pem(pem).map_err(|error| format!("`{shown}` cannot be used: {error}"))
}
