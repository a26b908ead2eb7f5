//! Until when GitHub accepts a version of the runner.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Error, ErrorKind, GitHub, path};
use edgerunner_scheduler::model::{Target, UnixMs};

/// Dates that can be true: after the first runner, and before the runners of today are forgotten.
const YEARS: std::ops::RangeInclusive<i16> = 2019..=2099;

/// Until when GitHub accepts a version of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionEnd {
    At(UnixMs),
    /// Why it cannot be known, on one line.
    Unknown(String),
}

impl GitHub {
    /// The earlier end, of registration or of running: a runner for one job registers again. GitHub
    /// knows the latest versions only, and an Enterprise Server may know none.
    pub(crate) async fn version_end(
        &self,
        target: &Target,
        version: &str,
    ) -> Result<VersionEnd, Error> {
        #[derive(Deserialize)]
        struct Reply {
            #[serde(default)]
            runtime_deprecates_at: Value,
            #[serde(default)]
            registration_deprecates_at: Value,
        }
        let call = format!("asking {target} for the end of runner version {version}");
        let path = format!("{}/deprecations/{}", path::runners(target), path::segment(version));
        let response = self.send(&call, Method::GET, &path, None, target).await?;
        if response.status != StatusCode::OK {
            let error = self.client.error(&call, &response);
            return match error.kind {
                // Nothing follows for other calls with the credential.
                ErrorKind::NotFound => {
                    Ok(VersionEnd::Unknown(format!("GitHub does not know version {version} (404)")))
                }
                ErrorKind::Forbidden => Ok(VersionEnd::Unknown(error.message)),
                _ => Err(error),
            };
        }
        let reply: Reply = self.client.read(&call, &response, StatusCode::OK)?;
        let dates = [reply.runtime_deprecates_at, reply.registration_deprecates_at];
        Ok(earliest(&dates))
    }
}

fn earliest(dates: &[Value]) -> VersionEnd {
    let mut earliest: Option<UnixMs> = None;
    for date in dates.iter().filter(|date| !date.is_null()) {
        let Some(at) = date.as_str().and_then(unix_ms) else {
            let date: String = date.to_string().chars().take(40).collect();
            let date = date.replace(char::is_control, " ");
            return VersionEnd::Unknown(format!("GitHub answered with an impossible date: {date}"));
        };
        earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
    }
    match earliest {
        Some(at) => VersionEnd::At(at),
        None => VersionEnd::Unknown("GitHub has set no date".to_owned()),
    }
}

/// In RFC 3339.
fn unix_ms(text: &str) -> Option<UnixMs> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let year = time.to_zoned(jiff::tz::TimeZone::UTC).year();
    YEARS.contains(&year).then(|| time.as_millisecond().try_into().ok()).flatten()
}
