//! The command line and its reference, `docs/cli.md`.

use clap_markdown::{MarkdownOptions, help_markdown_command_custom};
use edgerunner::cli;
use expect_test::expect_file;

#[test]
fn the_command_line_is_consistent() {
    cli::command().debug_assert();
}

/// To update it, run `UPDATE_EXPECT=1 cargo test -p edgerunner --test command_line`.
#[test]
fn the_reference_matches_the_command_line() {
    let options = MarkdownOptions::new()
        .title("Command line reference".to_owned())
        .show_footer(false)
        .show_table_of_contents(false);
    let reference = help_markdown_command_custom(&cli::command(), &options);
    let reference: String =
        reference.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    expect_file!["../../docs/cli.md"].assert_eq(&reference);
}
