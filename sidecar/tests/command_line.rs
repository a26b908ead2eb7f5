//! The command line and what is written about it.

use std::{fs, path::PathBuf};

use clap_markdown::{MarkdownOptions, help_markdown_command_custom};
use edgerunner::cli;

/// Writes the reference instead of comparing it.
const WRITE: &str = "EDGERUNNER_WRITE_DOCS";

#[test]
fn the_command_line_is_consistent() {
    cli::command().debug_assert();
}

#[test]
fn the_reference_is_what_the_command_line_says() {
    let options = MarkdownOptions::new()
        .title("edgerunner: command line".to_owned())
        .show_footer(false)
        .show_table_of_contents(false);
    let reference = help_markdown_command_custom(&cli::command(), &options);
    let reference: String =
        reference.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&file, &reference).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == reference,
        "docs/cli.md is out of date: {WRITE}=1 cargo test -p edgerunner --test command_line"
    );
}
