//! A second `serve` on the same store.

use std::{fs::File, io::Write as _, process::Command};

#[test]
fn serve_ends_with_64_and_names_the_process_that_uses_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("edgerunner.db");
    // This test is the other process.
    let mut lock = File::create(directory.path().join("edgerunner.db-lock")).unwrap();
    lock.lock().unwrap();
    writeln!(lock, "{}", std::process::id()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edgerunner"))
        .arg("serve")
        .env_clear()
        .envs([("GITHUB_TOKEN", "token"), ("GITHUB_API_URL", "http://127.0.0.1:9")])
        .env("STORE_PATH", &store)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
    assert!(!store.exists());
}
