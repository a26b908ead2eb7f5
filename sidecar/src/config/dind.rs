//! Checks of the settings of the Docker Engine that `docker = "dind"` starts.

use std::net::IpAddr;

use http::{Uri, uri::Authority};

use super::{Container, document::Document};

/// Arguments of `dockerd` that edgerunner sets itself: jobs find the Engine by them.
const OWN_ARGUMENTS: [&str; 4] = ["--host", "-H", "--group", "-G"];

impl Document {
    pub(super) fn check_dind(&mut self, pool: &str, container: &Container) {
        let mut check =
            |field: &str, items: &[String], problem: fn(&str) -> Option<&'static str>| {
                for (index, item) in items.iter().enumerate() {
                    if let Some(problem) = problem(item) {
                        self.error(&format!("{pool}/{field}/{index}"), problem);
                    }
                }
            };
        check("registry_mirrors", &container.registry_mirrors, mirror_problem);
        check("insecure_registries", &container.insecure_registries, registry_problem);
        check("dind_args", &container.dind_args, argument_problem);
    }
}

/// `dockerd` refuses the same.
fn mirror_problem(url: &str) -> Option<&'static str> {
    let uri = match url.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => uri,
        _ => return Some("write a URL such as https://mirror.example.com"),
    };
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        Some(
            "write the URL without user and password: every job could read them; give the mirror \
             itself the login of the registry that it asks",
        )
    } else if !matches!(uri.path(), "" | "/") || url.contains(['?', '#']) {
        Some("write the URL without a path, ? or #: Docker asks for /v2/ at the mirror's host")
    } else {
        None
    }
}

fn registry_problem(text: &str) -> Option<&'static str> {
    let is_network = text.split_once('/').is_some_and(|(address, bits)| {
        let bits_max = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
    });
    let is_host = || {
        let authority = text.parse::<Authority>().ok();
        authority.is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'))
    };
    let problem = "write HOST, HOST:PORT or a network such as 10.0.0.0/8, without http://";
    (!is_network && !is_host()).then_some(problem)
}

fn argument_problem(text: &str) -> Option<&'static str> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if !text.starts_with('-') || text.contains(char::is_control) {
        Some("write an argument of dockerd such as --mtu=1400")
    } else if OWN_ARGUMENTS.contains(&name) {
        Some("edgerunner sets this argument itself, so that jobs find the Engine: remove it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_url_without_anything_secret_or_a_path() {
        for url in ["https://mirror.example.com", "http://172.17.0.1:5000", "https://m.example/"] {
            assert_eq!(mirror_problem(url), None, "{url}");
        }
        for (url, expected) in [
            ("mirror.example.com", "write a URL such as"),
            ("mirror.example.com:5000", "write a URL such as"),
            ("ftp://mirror.example.com", "write a URL such as"),
            ("https://", "write a URL such as"),
            ("https://ci:secret@mirror.example.com", "without user and password"),
            ("https://mirror.example.com/hub", "without a path"),
            ("https://mirror.example.com?a=b", "without a path"),
            ("https://mirror.example.com#a", "without a path"),
        ] {
            let problem = mirror_problem(url).unwrap_or_default();
            assert!(problem.contains(expected), "{url}: {problem}");
        }
    }

    #[test]
    fn an_insecure_registry_is_a_host_or_a_network() {
        for text in ["registry", "registry.example.com:5000", "10.0.0.0/8", "fd00::/8", "10.1.2.3"]
        {
            assert_eq!(registry_problem(text), None, "{text}");
        }
        for text in
            ["http://registry", "registry/path", "10.0.0.0/33", "a@registry", "a b", ":5000"]
        {
            assert!(registry_problem(text).is_some(), "{text}");
        }
    }

    #[test]
    fn arguments_that_jobs_depend_on_are_refused() {
        for text in ["--mtu=1400", "--debug", "-D", "--hosts-file=/x"] {
            assert_eq!(argument_problem(text), None, "{text}");
        }
        for text in ["debug", "", "--host=tcp://0.0.0.0:2375", "-H", "--group=0", "-G"] {
            assert!(argument_problem(text).is_some(), "{text}");
        }
    }
}
