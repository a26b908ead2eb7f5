//! `edgerunner retry`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::Client,
    output::{parse, print},
};
use crate::control::command::Retried;

pub(super) fn retry(client: &Client) -> Result<()> {
    let retried: Retried = parse(client.post("/api/v1/retry", &Value::Null)?)?;
    print(&(describe(&retried) + "\n"))
}

fn describe(Retried { retried, rate_limited }: &Retried) -> String {
    let tried = match retried {
        0 => "Nothing waits after a failure.".to_owned(),
        1 => "1 failure: one launch is tried now.".to_owned(),
        _ => format!("{retried} failures: one launch is tried now for each."),
    };
    match rate_limited {
        0 => tried,
        1 => format!("{tried} 1 wait goes on, because GitHub asked for it."),
        _ => format!("{tried} {rate_limited} waits go on, because GitHub asked for them."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_and_what_is_not_is_said() {
        let said = |retried, rate_limited| describe(&Retried { retried, rate_limited });
        assert_eq!(said(0, 0), "Nothing waits after a failure.");
        assert_eq!(
            said(2, 1),
            "2 failures: one launch is tried now for each. 1 wait goes on, because GitHub asked \
             for it."
        );
    }
}
