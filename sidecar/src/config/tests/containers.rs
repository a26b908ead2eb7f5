//! Registries, containers and job scripts.

use secrecy::ExposeSecret as _;

use super::*;

#[test]
fn registries_have_a_host_a_user_and_a_password() {
    let secret = TempFile::new("s3cret\n");
    let file = format!(
        "[[registries]]\nhost = \"ghcr.io\"\nusername = \"acme\"\npassword = {SECRET:?}\n\
         [[registries]]\nhost = \"127.0.0.1:5000\"\nusername = \"acme\"\npassword_file = {:?}\n",
        secret.path()
    );
    let config = load(&file, &[]).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let reported: Vec<_> = config
        .registries
        .iter()
        .map(|it| (&*it.host, it.password.as_ref().unwrap().expose_secret()))
        .collect();
    assert_eq!(reported, [("ghcr.io", SECRET), ("127.0.0.1:5000", "s3cret")]);

    let file = r#"[[registries]]
host = "https://ghcr.io/"
username = "a"
password = "ghp_do_not_print_me"
password_file = "/dev/null"
[[registries]]
host = "a.example"
[[registries]]
host = "a.example"
username = "a"
pasword = "ghp_do_not_print_me"
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "2: registries[0].host: write the host as in image names",
            "5: registries[0].password_file: the secret is also set directly",
            "6: registries[1].username: write the user name",
            "6: registries[1].password: the password is missing",
            "9: registries[2].host: another registry has this host",
            "11: registries[2].pasword: unknown setting: did you mean `password`?",
            "8: registries[2].password: the password is missing",
        ],
    );
}

#[test]
fn job_scripts_are_read_from_files_of_this_machine() {
    let file = format!(
        "docker.job_started_script = {SCRIPT_FILE:?}\n[[pools]]\nname = \"one\"\n\
         job_completed_script = {SCRIPT_FILE:?}\n"
    );
    let config = load(&file, &[]).unwrap();
    let scripts: Vec<_> = config.pools[0]
        .job_scripts
        .iter()
        .map(|script| (script.variable, &*script.path, script.content.as_slice()))
        .collect();
    let content: &[u8] = b"#!/bin/sh\necho script\n";
    assert_eq!(
        scripts,
        [
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED", "/opt/edgerunner/job-started.sh", content),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", "/opt/edgerunner/job-completed.sh", content),
        ]
    );

    let long = tempfile::NamedTempFile::with_suffix(".sh").unwrap();
    long.as_file().set_len((1 << 20) + 1).unwrap();
    let file = format!(
        "[docker]\njob_started_script = \"/no/such/file.sh\"\njob_completed_script = \"/dev/null\"\n\
         [[pools]]\nname = \"one\"\n[[pools]]\nname = \"two\"\njob_started_script = {:?}\n",
        long.path()
    );
    let reported = errors(&file, &[]);
    assert_errors(
        &reported,
        &[
            "2: docker.job_started_script: cannot read that file",
            "3: docker.job_completed_script: write the path of a .sh or .ps1 script",
            "8: pools[1].job_started_script: that file is larger than 1 MiB",
        ],
    );
}

#[test]
fn errors_in_container_settings_say_what_to_write() {
    let file = r#"[docker]
host = "tcp://127.0.0.1:2375"
ulimits = ["nofile", "core=-2", "nproc=1:2"]
dind_image = "docker dind"
docker = "yes"
[[pools]]
name = "one"
docker = "socket"
[[pools]]
name = "two"
docker = "dind"
network = "host"
[[pools]]
name = "three"
docker = "none"
network = "host"
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "3: docker.ulimits[0]: write NAME=SOFT",
            "3: docker.ulimits[1]: write NAME=SOFT",
            "4: docker.dind_image: write an image such as docker:dind",
            "5: docker.docker: write \"none\" or \"socket\" or \"dind\"",
            "8: pools[0].docker: the Docker socket is not on this machine",
            "12: pools[1].network: docker = \"dind\" needs a bridge network",
        ],
    );
}

#[test]
fn images_that_register_themselves_have_a_command() {
    let command = |text: &str| load(text, &[]).unwrap().pools[0].command();
    assert!(command("runner.contract = \"registration-token\"").is_empty());
    assert!(command("docker.command = []").is_empty());
    assert_eq!(command("docker.command = [\"/run\"]"), ["/run"]);
}
