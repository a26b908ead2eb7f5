//! Checks the version of Envoy, which the filter sends with its answer to a ping.

use serde::Deserialize;

use super::report::Report;

const CHECK: &str = "Envoy";
/// The releases that this one was made for.
const VERSIONS: &str = include_str!("../../../../envoy/versions.toml");

#[derive(Deserialize)]
struct Versions {
    tested: String,
    images: String,
}

#[derive(Deserialize)]
struct Pong {
    /// Absent if the filter cannot read it.
    envoy: Option<String>,
    /// The filter's own version.
    filter: Option<String>,
}

const FILTER: &str = "filter";

/// `pong` is the filter's answer.
pub(super) fn check(pong: &str, report: &mut Report) {
    let (found, filter) =
        serde_json::from_str(pong).map_or((None, None), |Pong { envoy, filter }| (envoy, filter));
    let own = env!("CARGO_PKG_VERSION");
    match filter {
        Some(filter) if filter == own => report.ok(FILTER, filter),
        Some(filter) => report.warning(
            FILTER,
            format!("{filter}, and this command is {own}: install the filter of the same release"),
        ),
        None => {}
    }
    match assess(found.as_deref()) {
        Ok(message) => report.ok(CHECK, message),
        Err(message) => report.warning(CHECK, message),
    }
}

/// What is to be said of this version: an error if it should be another.
fn assess(found: Option<&str>) -> Result<String, String> {
    let Ok(Versions { tested, images }) = toml::from_str(VERSIONS) else {
        return Err("this release does not know its own versions of Envoy".to_owned());
    };
    let known = parse(&tested).zip(parse(&images));
    let found = found.and_then(|found| Some((found, parse(found)?)));
    let (Some((text, found)), Some((tested_parts, images_parts))) = (found, known) else {
        return Err(format!(
            "the filter does not report its version; edgerunner is tested with {tested}"
        ));
    };
    let ([major, minor, patch], [.., newest_patch]) = (found, images_parts);
    let tested_minor = (tested_parts[0], tested_parts[1]);
    let series = format!("{}.{}", tested_minor.0, tested_minor.1);
    if (major, minor) < tested_minor {
        return Err(format!(
            "{text} is older than {series}, which edgerunner is tested with: update it to {images} \
             or later"
        ));
    }
    if (major, minor) > tested_minor {
        return Err(format!("{text} is newer than {series}, which edgerunner is tested with"));
    }
    if patch < newest_patch {
        return Err(format!(
            "{text} lacks the security fixes of {images}: update it; edgerunner is tested with \
             {tested}"
        ));
    }
    Ok(format!("{text}; edgerunner is tested with {tested}"))
}

fn parse(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        toml::from_str(VERSIONS).unwrap()
    }

    #[test]
    fn the_version_in_the_images_is_fine_and_so_are_later_patches() {
        let images = versions().images;
        let [major, minor, patch] = parse(&images).unwrap();
        let later = format!("{major}.{minor}.{}", patch + 7);
        for found in [images, later] {
            let said = assess(Some(&found)).unwrap();
            assert!(said.starts_with(&found) && said.contains(&versions().tested), "{said}");
        }
    }

    #[test]
    fn other_versions_are_warned_of() {
        let images = versions().images;
        let [major, minor, patch] = parse(&images).unwrap();
        for (found, expected) in [
            (format!("{major}.{minor}.{}", patch - 1), "lacks the security fixes"),
            (format!("{major}.{}.9", minor - 1), "older than"),
            (format!("{}.99.0", major - 1), "older than"),
            (format!("{major}.{}.0", minor + 1), "newer than"),
            (format!("{}.0.0", major + 1), "newer than"),
            (format!("{major}.{minor}"), "does not report its version"),
            ("main".to_owned(), "does not report its version"),
        ] {
            let said = assess(Some(&found)).unwrap_err();
            assert!(said.contains(expected), "{found}: {said}");
        }
        assert!(assess(None).unwrap_err().contains(&versions().tested));
    }
}
