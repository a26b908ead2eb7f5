//! The gRPC contract between filter and sidecar, generated from
//! `proto/edgerunner/v1/intake.proto`. The generated files are in Git: generating them in a build
//! script would compile 60 crates more for every build, and again for each of its targets.

/// Messages, and with the features `client` and `server` the service.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs)]
pub mod v1 {
    include!("generated/edgerunner.v1.rs");
}

/// Maximum size of an encoded [`v1::JobEvent`], in bytes; GitHub's are far smaller. The filter
/// sends nothing larger: a message that exceeds the sidecar's limit would end the stream, and
/// with it every delivery that waits for a reply.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Version of the contract, a number, to be raised by one with every change. The filter sends it with
/// every call. The sidecar accepts versions that are one apart, so that filters and sidecars are
/// upgraded one after the other, in any order: a change that such a pair would misunderstand takes
/// two releases, the first of which understands both.
pub const CONTRACT_VERSION: &str = "2";
/// Key of the gRPC metadata that carries [`CONTRACT_VERSION`].
pub const CONTRACT_METADATA: &str = "edgerunner-contract";

/// Longest host, in bytes: DNS allows 253, and a port follows.
const HOST_BYTES_MAX: usize = 260;

/// The host in a URL of GitHub's web pages, as [`v1::JobEvent::host`] has it. `None` if it is
/// not such a URL.
pub fn host_of(web_url: &str) -> Option<String> {
    let (scheme, rest) = web_url.split_once("://")?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let host = authority.strip_suffix(default_port).unwrap_or(&authority);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (!host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_part))
        .then(|| host.to_owned())
}

/// Identifies the build: the commit, in releases.
pub const BUILD: &str = match option_env!("EDGERUNNER_BUILD") {
    Some(build) => build,
    None => "local build",
};

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/edgerunner.bin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_has_its_port_unless_that_is_the_default() {
        for (url, host) in [
            ("https://github.com/acme/app", "github.com"),
            ("https://GHE.Example.com:443/acme/app", "ghe.example.com"),
            ("https://ghe.example.com:8443", "ghe.example.com:8443"),
            ("http://127.0.0.1:8082/acme/app", "127.0.0.1:8082"),
            ("http://[::1]:80/acme/app", "[::1]"),
        ] {
            assert_eq!(host_of(url).as_deref(), Some(host), "{url}");
        }
        let too_long = format!("https://{}/acme/app", "a".repeat(HOST_BYTES_MAX + 1));
        for url in [
            "",
            "github.com/acme",
            "ssh://github.com",
            "https:///acme",
            "https://a b/",
            "https://u@h/",
            &too_long,
        ] {
            assert_eq!(host_of(url), None, "{url}");
        }
    }
}
