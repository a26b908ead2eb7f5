//! The version of GitHub's runner, from its image, which is not run for that, or from its log.

use std::collections::HashMap;

/// Before the version, in the log of GitHub's runner.
const LOGGED: &str = "Current runner version: '";
/// Where GitHub's own image names its release.
const RELEASE: &str = "github.com/actions/runner/releases/tag/";
/// Variables and labels of images that have the runner's version.
const VARIABLE: &str = "RUNNER_VERSION";
const LABELS: [&str; 2] =
    ["org.opencontainers.image.description", "org.opencontainers.image.version"];
/// The first version that was published for everyone. Lower numbers are an image's own.
const FIRST: (u32, u32) = (2, 164);
const PARTS: usize = 3;

/// Three numbers, such as `2.335.0`, without the `v` that may be in front of them. `None` if the
/// text is anything else.
pub(crate) fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    let is_number =
        |part: &str| matches!(part.len(), 1..=6) && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split('.');
    (parts.clone().count() == PARTS && parts.clone().all(is_number)).then(|| text.to_owned())
}

/// From the tag of an image's name.
pub(crate) fn in_name(image: &str) -> Option<String> {
    let name = image.split('@').next().unwrap_or(image);
    let (_, tag) = name.rsplit('/').next()?.split_once(':')?;
    of_runner(tag)
}

/// From what a runner writes once it is connected.
pub(crate) fn in_log(log: &str) -> Option<String> {
    let (_, line) = log.rsplit_once(LOGGED)?;
    parse(line.split('\'').next()?)
}

/// From the labels and the environment of an image. `env`: lines as `NAME=value`.
pub(crate) fn in_image(labels: &HashMap<String, String>, env: &[String]) -> Option<String> {
    let variable = || {
        let variables = env.iter().filter_map(|line| line.split_once('='));
        variables.filter(|(name, _)| *name == VARIABLE).find_map(|(_, value)| of_runner(value))
    };
    let label = || LABELS.iter().filter_map(|label| labels.get(*label)).find_map(|it| in_label(it));
    variable().or_else(label)
}

fn in_label(text: &str) -> Option<String> {
    match text.split_once(RELEASE) {
        Some((_, release)) => of_runner(release.split_whitespace().next()?),
        None => of_runner(text),
    }
}

/// `None` also for the number of an image that counts its own versions.
fn of_runner(text: &str) -> Option<String> {
    let version = parse(text)?;
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let known = (numbers.next()?, numbers.next()?) >= FIRST;
    known.then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(parse(" v2.335.0\n").as_deref(), Some("2.335.0"));
        for other in ["", "2.335", "2.335.0.1", "2.335.x", "2..0", "latest", "2.335.0/..", "٢.1.1"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_runner_logs_its_version() {
        let log = "√ Connected to GitHub\n\nCurrent runner version: '2.335.0'\n\
                   2026-12-08 00:00:00Z: Listening for Jobs\n";
        assert_eq!(in_log(log).as_deref(), Some("2.335.0"));
        for other in ["", "Current runner version: ''", "Current runner version: 'x'", "2.335.0"] {
            assert_eq!(in_log(other), None, "{other}");
        }
    }

    #[test]
    fn the_version_of_a_runner_is_told_from_that_of_its_image() {
        for (image, expected) in [
            ("ghcr.io/actions/actions-runner:2.335.0", Some("2.335.0")),
            ("localhost:5000/runner:v2.335.0@sha256:0f", Some("2.335.0")),
            ("localhost:5000/runner", None),
            ("acme/runner:2.1.0", None),
            ("acme/runner:latest", None),
            ("acme/runner@sha256:0f", None),
        ] {
            assert_eq!(in_name(image).as_deref(), expected, "{image}");
        }
        let labels = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
        let version = "org.opencontainers.image.version";
        let description = "org.opencontainers.image.description";
        let release = "https://github.com/actions/runner/releases/tag/v2.335.0";
        for (labels, env, expected) in [
            (labels(version, "2.335.0"), "HOME=/root", Some("2.335.0")),
            // That of Ubuntu.
            (labels(version, "22.04"), "HOME=/root", None),
            (labels(version, "1.4.2"), "RUNNER_VERSION=2.334.1", Some("2.334.1")),
            (labels(description, release), "RUNNER_VERSION=latest", Some("2.335.0")),
            (labels(description, "A runner"), "RUNNER_VERSION=", None),
        ] {
            assert_eq!(in_image(&labels, &[env.to_owned()]).as_deref(), expected, "{labels:?}");
        }
    }
}
