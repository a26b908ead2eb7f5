//! The HTTP proxy between us and GitHub.

use http::{HeaderValue, Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::{ExposeSecret as _, SecretString};

/// A proxy that supports `CONNECT`. `Debug` leaves out its credentials.
#[derive(Clone, Debug)]
pub(crate) struct Proxy(Intercept);

impl Proxy {
    /// `None` if `no_proxy`, in the form of the environment variable, covers the host of
    /// `api_url`.
    pub(crate) fn to(
        api_url: &Uri,
        proxy_url: &SecretString,
        no_proxy: &str,
    ) -> Result<Option<Self>, &'static str> {
        // Without TLS the proxy could read every request, and with it the token.
        if api_url.scheme() != Some(&Scheme::HTTPS) {
            return Err("a proxy needs an api_url with TLS: write https://, or remove the proxy");
        }
        check_characters(proxy_url.expose_secret())?;
        let matcher = || Matcher::builder().https(proxy_url.expose_secret());
        match matcher().build().intercept(api_url) {
            Some(proxy) if proxy.uri().scheme() == Some(&Scheme::HTTP) => {
                Ok(matcher().no(exceptions(no_proxy, api_url)).build().intercept(api_url).map(Self))
            }
            _ => Err("write a URL such as http://HOST:3128 or http://USER:PASSWORD@HOST:3128"),
        }
    }

    pub(crate) fn url(&self) -> &Uri {
        self.0.uri()
    }

    /// The value of `Proxy-Authorization`.
    pub(crate) fn credentials(&self) -> Option<&HeaderValue> {
        self.0.basic_auth()
    }
}

/// The entries of `no_proxy` that may concern this URL, in the form that the matcher knows: it
/// takes neither `*.DOMAIN` nor ports.
fn exceptions(no_proxy: &str, api_url: &Uri) -> String {
    let port = api_url.port_u16().unwrap_or(443);
    let entries = no_proxy.split([',', ' ']).map(str::trim).filter_map(|entry| {
        let entry = entry.strip_prefix("*").filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        // An IPv6 address without brackets has colons, but no port.
        match entry.rsplit_once(':') {
            Some((host, own)) if !host.contains(':') || host.ends_with(']') => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                (own.parse() == Ok(port)).then_some(host)
            }
            _ => Some(entry.trim_start_matches('[').trim_end_matches(']')),
        }
    });
    entries.collect::<Vec<_>>().join(",")
}

/// The URL parser would end the password at such a character, and take the rest of it for the
/// host.
fn check_characters(url: &str) -> Result<(), &'static str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.matches('@').count() > 1 || rest.contains(['/', '#', '?']) {
        return Err("a special character in the user name or password ends it early: write %40 \
                    for @, %23 for #, %2F for /, %3F for ?; the URL has no path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_serves_all_hosts_but_the_exceptions() {
        let proxy = |api_url: &'static str, no_proxy| {
            let url = SecretString::from("http://user:pass@proxy:3128");
            Proxy::to(&Uri::from_static(api_url), &url, no_proxy)
        };
        let served = |api_url, no_proxy| proxy(api_url, no_proxy).unwrap().is_some();
        assert!(served("https://api.github.com", ""));
        assert!(served("https://api.github.com", "localhost,ghe.example"));
        assert!(!served("https://ghe.example/api/v3", "localhost,ghe.example"));
        assert!(!served("https://git.ghe.example/api/v3", ".ghe.example"));
        assert!(!served("https://10.1.2.3/api/v3", "10.0.0.0/8"));
        for (api_url, no_proxy, is_served) in [
            ("https://git.ghe.example/api/v3", "*.ghe.example", false),
            ("https://ghe.example.org/api/v3", "*.ghe.example", true),
            ("https://notghe.example/api/v3", "*.ghe.example", true),
            ("https://git.ghe.example/api/v3", "localhost *.ghe.example", false),
            ("https://ghe.example/api/v3", "ghe.example:443", false),
            ("https://ghe.example/api/v3", "ghe.example:8443", true),
            ("https://ghe.example:8443/api/v3", "ghe.example:8443", false),
            ("https://git.ghe.example:8443/api/v3", "*.ghe.example:8443", false),
            ("https://git.ghe.example/api/v3", ".ghe.example:443", false),
            ("https://10.1.2.3/api/v3", "10.1.2.3:443", false),
            ("https://[fd00::1]/api/v3", "[fd00::1]:443", false),
            ("https://[fd00::1]/api/v3", "fd00::1", false),
            ("https://[fd00::1]/api/v3", "[fd00::2]:443", true),
            ("https://ghe.example/api/v3", "*", false),
            ("https://ghe.example/api/v3", "ghe.example:port", true),
        ] {
            assert_eq!(served(api_url, no_proxy), is_served, "{api_url} {no_proxy}");
        }
        assert!(proxy("http://ghe.example/api/v3", "").is_err());
        assert!(!format!("{:?}", proxy("https://api.github.com", "")).contains("pass"));
    }

    #[test]
    fn special_characters_of_a_password_are_percent_encoded() {
        let github = Uri::from_static("https://api.github.com");
        let proxy = |password: &str| {
            let url = format!("http://user:{password}@proxy:3128");
            Proxy::to(&github, &SecretString::from(url), "")
        };
        for password in ["a@b", "a#b", "a/b", "a?b", "@", "#"] {
            let problem = proxy(password).unwrap_err();
            assert!(problem.contains("%40 for @"), "{password}: {problem}");
        }
        let encoded = proxy("a%40b%23%2F").unwrap().unwrap();
        assert_eq!(encoded.url().host(), Some("proxy"));
        let credentials = encoded.credentials().unwrap().to_str().unwrap();
        assert_eq!(credentials, "Basic dXNlcjphQGIjLw==", "user:a@b#/");
    }

    #[test]
    fn only_http_proxies_are_accepted() {
        let github = Uri::from_static("https://api.github.com");
        for url in ["https://proxy:3128", "socks5://proxy:1080", "http://", "a b", "ftp://proxy"] {
            assert!(Proxy::to(&github, &SecretString::from(url), "").is_err(), "{url}");
        }
        for url in ["http://proxy:3128", "proxy:3128", "http://proxy"] {
            assert!(Proxy::to(&github, &SecretString::from(url), "").is_ok(), "{url}");
        }
    }
}
