//! Generates `src/generated/` from the contract with protox, which needs no `protoc`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/generated");

/// Writes the files into the directory, and returns their names.
fn generate(directory: &Path) -> Result<[&'static str; 2], Box<dyn Error>> {
    let descriptors = protox::compile(
        ["edgerunner/v1/intake.proto"],
        [concat!(env!("CARGO_MANIFEST_DIR"), "/proto")],
    )?;
    fs::write(directory.join("edgerunner.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(directory)
        .compile_fds(descriptors)?;
    Ok(["edgerunner.bin", "edgerunner.v1.rs"])
}

#[test]
fn the_generated_files_are_up_to_date() -> Result<(), Box<dyn Error>> {
    let checked_in = PathBuf::from(DIRECTORY);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(&checked_in)?;
        generate(&checked_in)?;
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    for name in generate(directory.path())? {
        let generated = fs::read(directory.path().join(name))?;
        assert!(
            generated == fs::read(checked_in.join(name))?,
            "proto/src/generated/{name} is out of date: run \
             UPDATE_EXPECT=1 cargo test -p edgerunner-proto --test generated"
        );
    }
    Ok(())
}
