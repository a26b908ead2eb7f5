//! Addresses in responses: the `Link` header, by which GitHub names the next page of a list, and
//! `Location`, to which it redirects.
//!
//! `Link` is read here because no maintained crate does it in full: parse_link_header and
//! http-link split URLs at commas, nom-rfc8288 brings four more crates.

use http::{HeaderMap, Uri, header};

/// The next page that a `Link` header names, as a path relative to `base`. An address outside of
/// `base` is an error: every request carries the token, so a response must not choose where it
/// goes.
pub(super) fn next(headers: &HeaderMap, base: &Uri) -> Result<Option<String>, String> {
    let Some(link) = headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_target)
    else {
        return Ok(None);
    };
    match within(link, base) {
        Ok(path) => Ok(Some(path)),
        Err(place) => Err(format!("the next page is at {place}, outside of api_url: not followed")),
    }
}

/// An address as a path relative to `base`, with its query. `Err` says where it is if it is not
/// below `base`: at another host, scheme, port or path.
pub(super) fn within(address: &str, base: &Uri) -> Result<String, String> {
    let uri: Uri = address.parse().map_err(|_| "an address that is no URL".to_owned())?;
    if uri.authority().is_some() && origin(&uri) != origin(base) {
        let (scheme, host, port) = origin(&uri);
        let host = host.unwrap_or_default();
        return Err(match (scheme, port) {
            (Some(scheme), Some(port)) => format!("{scheme}://{host}:{port}"),
            _ => host,
        });
    }
    let base_path = base.path().trim_end_matches('/');
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let climbs = uri.path().split('/').any(|segment| {
        matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
    });
    path.strip_prefix(base_path)
        // Two slashes begin a host.
        .filter(|rest| rest.starts_with('/') && !rest.starts_with("//") && !climbs)
        .map(str::to_owned)
        .ok_or_else(|| "another path".to_owned())
}

/// The target of `rel="next"` in `<url>; rel="next", <url>; rel="last"`.
fn next_target(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let (parameters, _) = after.split_once('<').unwrap_or((after, ""));
        let is_next = parameters
            .split([';', ','])
            .filter_map(|parameter| parameter.trim().split_once('='))
            .any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split(' ')
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

fn origin(uri: &Uri) -> (Option<String>, Option<String>, Option<u16>) {
    let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
    let port = uri.port_u16().or(match scheme.as_deref() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    });
    (scheme, uri.host().map(str::to_ascii_lowercase), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(link: &str, base: &'static str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, link.parse().unwrap());
        next(&headers, &Uri::from_static(base))
    }

    const GITHUB: &str = "https://api.github.com";
    const SERVER: &str = "https://ghe.example/api/v3";

    #[test]
    fn next_is_found_among_the_others() {
        let link = r#"<https://api.github.com/orgs/a/actions/runners?page=1>; rel="prev", <https://api.github.com/orgs/a/actions/runners?per_page=100&page=3>; rel="next", <https://api.github.com/x?page=9>; rel="last""#;
        let path = "/orgs/a/actions/runners?per_page=100&page=3";
        assert_eq!(next_of(link, GITHUB), Ok(Some(path.to_owned())));
    }

    #[test]
    fn the_last_page_has_no_next() {
        let link = r#"<https://api.github.com/x?page=1>; rel="first", <https://api.github.com/x?page=2>; rel="prev""#;
        assert_eq!(next_of(link, GITHUB), Ok(None));
        assert_eq!(next(&HeaderMap::new(), &Uri::from_static(GITHUB)), Ok(None));
    }

    #[test]
    fn a_default_port_and_a_base_path_are_the_same_place() {
        let link = r#"<https://GHE.example:443/api/v3/orgs/a/actions/runners?page=2>; rel=next"#;
        assert_eq!(next_of(link, SERVER), Ok(Some("/orgs/a/actions/runners?page=2".to_owned())));
    }

    #[test]
    fn another_host_scheme_port_or_path_is_refused() {
        for (link, base) in [
            (r#"<https://evil.example/orgs/a?page=2>; rel="next""#, GITHUB),
            (r#"<http://api.github.com/orgs/a?page=2>; rel="next""#, GITHUB),
            (r#"<https://api.github.com:8443/orgs/a?page=2>; rel="next""#, GITHUB),
            (r#"<https://api.github.com@evil.example/a>; rel="next""#, GITHUB),
            (r#"<//evil.example/a>; rel="next""#, SERVER),
            (r#"<https://ghe.example/elsewhere?page=2>; rel="next""#, SERVER),
            (r#"<https://ghe.example/api/v3x/orgs/a?page=2>; rel="next""#, SERVER),
            (r#"<https://ghe.example/api/v3/../../orgs/a?page=2>; rel="next""#, SERVER),
            (r#"<https://ghe.example/api/v3/%2E%2e/orgs/a?page=2>; rel="next""#, SERVER),
            (r#"<orgs/a?page=2>; rel="next""#, GITHUB),
        ] {
            assert!(next_of(link, base).is_err(), "{link}");
        }
    }
}
