//! Timestamps as GitHub sends them.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Serializes without a fraction of a second, rounded down: `2026-11-28T16:00:00Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeSeconds(pub Timestamp);

impl Serialize for WholeSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.0}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_second_is_dropped() {
        for time in ["2026-11-28T16:00:00Z", "2026-11-28T16:00:00.999999999Z"] {
            let time: Timestamp = time.parse().expect("a timestamp");
            let json = serde_json::to_string(&WholeSeconds(time)).expect("JSON");
            assert_eq!(json, "\"2026-11-28T16:00:00Z\"");
        }
    }
}
