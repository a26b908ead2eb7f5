//! Hosts that jobs may connect to.

use std::{fmt, net::Ipv4Addr};

use super::{
    Container, DockerAccess,
    document::{Document, child},
};

/// DNS has the same limit.
const NAME_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;
/// They all become part of one argument of Envoy, which may have 128 KiB.
const HOSTS_MAX: usize = 300;
/// The sidecar sets them for the runner.
const PROXY_VARIABLES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// A host, or all hosts below a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressHost {
    /// In lower case.
    name: String,
    /// Every name below `name`, but not `name` itself.
    below: bool,
    /// `None`: the standard ports of HTTPS and HTTP.
    port: Option<u16>,
}

impl EgressHost {
    /// Returns what is wrong with the text, otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const RULE: &str = "write a host name such as github.com, or *.github.com for all names \
                            below it, without a scheme or path";
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => match port.parse::<u16>() {
                Ok(port) if port > 0 => (host, Some(port)),
                _ if text.contains("://") => return Err(RULE),
                _ => return Err("write a port from 1 to 65535 after the colon"),
            },
        };
        if host == "*" {
            return Err("* alone would permit every host: list the hosts, or write \
                        egress_mode = \"observe\" to see which ones jobs use");
        }
        let (name, below) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (host, false),
        };
        if name.contains('*') {
            return Err("* stands for everything before the first dot only, as in *.example.com");
        }
        if name.parse::<Ipv4Addr>().is_ok() || host.contains(['[', ']']) {
            return Err("addresses are not permitted: write a host name");
        }
        let labels: Vec<&str> = name.split('.').collect();
        let is_name = name.len() <= NAME_CHARS_MAX
            && labels.iter().all(|label| is_label(label))
            // An address in another form, such as 127.1 or 0x7f.1, ends in a number.
            && labels.last().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !is_name || labels.len() < 2 {
            return Err(match below && labels.len() == 1 && is_name {
                true => {
                    "*. before a top-level domain would permit almost every host: write \
                         more of the name"
                }
                false => RULE,
            });
        }
        Ok(Self { name: name.to_ascii_lowercase(), below, port })
    }

    /// A regular expression for the authority of a request (host and port), in RE2's syntax and for
    /// lower case. `standard_port` may be left out if this is `optional`.
    pub(crate) fn regex(&self, standard_port: u16, optional: bool) -> String {
        let below = if self.below { r"(?:[a-z0-9_-]+\.)+" } else { "" };
        let name = self.name.replace('.', r"\.");
        let port = self.port.unwrap_or(standard_port);
        let optional = if optional && port == standard_port { "?" } else { "" };
        format!("{below}{name}(?::{port}){optional}")
    }
}

impl fmt::Display for EgressHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.below { "*." } else { "" })?;
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Document {
    pub(super) fn check_egress(&mut self, pool: &str, container: &Container) {
        for (index, text) in container.egress.iter().enumerate() {
            if let Err(problem) = EgressHost::parse(text) {
                self.error(&format!("{pool}/egress/{index}"), problem);
            }
        }
        if container.egress.len() > HOSTS_MAX {
            let problem = format!("write at most {HOSTS_MAX} hosts: use *.NAME for several");
            self.error(&format!("{pool}/egress"), problem);
        }
        if !container.has_egress() {
            return;
        }
        if container.network.is_some() {
            let problem = "runners with egress stand in a network of their own: remove this, or \
                           remove egress and egress_mode";
            self.error(&format!("{pool}/network"), problem);
        }
        if container.docker == DockerAccess::Socket {
            let problem = "with the socket of the host's Docker Engine, jobs get around egress: \
                           write \"dind\" or \"none\", or remove egress and egress_mode";
            self.error(&format!("{pool}/docker"), problem);
        }
        for name in container.env.keys() {
            if PROXY_VARIABLES.iter().any(|variable| name.eq_ignore_ascii_case(variable)) {
                let problem = "with egress, the sidecar sets this variable: remove it";
                self.error(&child(&format!("{pool}/env"), name), problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_all_names_below_one_with_or_without_a_port() {
        for (text, expected) in [
            ("GitHub.com", "github.com"),
            ("*.actions.githubusercontent.com", "*.actions.githubusercontent.com"),
            ("registry.example.com:5000", "registry.example.com:5000"),
            ("my_bucket.s3.amazonaws.com", "my_bucket.s3.amazonaws.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(EgressHost::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("*", "observe"),
            ("*:443", "observe"),
            ("*.com", "top-level"),
            ("git*.example.com", "before the first dot"),
            ("*.*.example.com", "before the first dot"),
            ("https://github.com", "without a scheme"),
            ("github.com/acme", "without a scheme"),
            ("github.com:", "port"),
            ("github.com:0", "port"),
            ("github.com:https", "port"),
            ("140.82.112.3", "addresses"),
            ("[::1]:443", "port"),
            ("127.1", "host name"),
            ("0x7f.0x1", "host name"),
            ("localhost", "host name"),
            ("git hub.com", "host name"),
            (".github.com", "host name"),
            ("github.com.", "host name"),
            ("-a.example.com", "host name"),
            ("bücher.example", "host name"),
        ] {
            let problem = EgressHost::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(EgressHost::parse(&format!("{}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_host_becomes_a_pattern_that_matches_its_port_alone() {
        let regex = |text: &str| EgressHost::parse(text).unwrap().regex(80, true);
        assert_eq!(regex("github.com"), r"github\.com(?::80)?");
        assert_eq!(regex("*.a.example"), r"(?:[a-z0-9_-]+\.)+a\.example(?::80)?");
        assert_eq!(regex("a.example:5000"), r"a\.example(?::5000)");
        assert_eq!(
            EgressHost::parse("a.example").unwrap().regex(443, false),
            r"a\.example(?::443)"
        );
    }
}
