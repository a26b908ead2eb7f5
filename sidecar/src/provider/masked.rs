//! A log without its secrets.

/// A shorter value is no secret, and masking it would leave gaps all over a log.
const MASKED_BYTES_MIN: usize = 6;

pub(super) fn masked<'a>(mut log: String, values: impl Iterator<Item = &'a str>) -> String {
    // Line by line: a log may begin in the middle of a value with several lines.
    let mut lines: Vec<&str> = values.flat_map(str::lines).map(str::trim).collect();
    lines.retain(|line| line.len() >= MASKED_BYTES_MIN);
    // Longest first: one may be part of another.
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    for line in lines {
        if log.contains(line) {
            log = log.replace(line, "***");
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn secrets_are_masked_line_by_line_and_the_longest_first() {
        let values = ["sesame-1", "sesame-1-and-more", "-----BEGIN\n  MIIEpAIB\n", "1", ""];
        let log = "+ config.sh --token sesame-1-and-more sesame-1\nMIIEpAIB\nexit 1\n";
        let expected = "+ config.sh --token *** ***\n***\nexit 1\n";
        assert_eq!(masked(log.into(), values.into_iter()), expected);
    }
}
