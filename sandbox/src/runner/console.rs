//! The runner's output, in the real runner's format.

use jiff::Timestamp;

pub(super) fn log(line: &str) {
    println!("{}: {line}", Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ"));
}
