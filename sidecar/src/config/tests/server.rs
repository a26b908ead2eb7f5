//! The addresses of the server, and webhooks.

use super::*;

#[test]
fn mutual_tls_needs_all_of_its_files_and_no_unix_socket() {
    let file = r#"
        [server]
        grpc_address = "unix:/run/edgerunner.sock"
        grpc_certificate_file = "server.pem"
        grpc_client_ca_file = "clients.pem"
    "#;
    let reported = errors(file, &[]).join("\n");
    assert!(
        reported.contains("server.grpc_certificate_file: a Unix socket has no TLS: remove this"),
        "{reported}"
    );
    assert!(reported.contains(
        "server.grpc_key_file: mutual TLS (grpc_certificate_file is set) also needs this file"
    ));
    let whole =
        file.replace("unix:/run/edgerunner.sock", "127.0.0.1:9") + "grpc_key_file = \"server.key\"";
    assert!(load(&whole, &[]).unwrap().server.grpc_tls().is_some());
    let reported = errors("server.grpc_address = \"unix:run.sock\"", &[]).join("\n");
    assert!(reported.contains("or unix:/PATH"), "{reported}");
}

#[test]
fn only_a_closed_listener_may_say_who_signed_in() {
    let names = "server.trusted_names = [\"runners.example.com\"]\n";
    let load_with = |text: &str| load(&format!("{names}{text}"), &[]);
    let unix = "server.sign_in_address = \"unix:/run/edgerunner/sign-in.sock\"";
    assert!(load_with(unix).unwrap().server.sign_in_address.is_some());
    let files = "server.sign_in_certificate_file = \"a\"\nserver.sign_in_key_file = \"b\"\n\
                 server.sign_in_client_ca_file = \"c\"";
    let tcp = "server.sign_in_address = \"127.0.0.1:8444\"\n";
    assert!(load_with(&format!("{tcp}{files}")).unwrap().server.sign_in_tls().is_some());
    for (file, expected) in [
        (tcp.to_owned(), "server.sign_in_address: anyone who can connect to this port could act"),
        (files.to_owned(), "server.sign_in_certificate_file: set sign_in_address as well"),
        (format!("{unix}\n{files}"), "server.sign_in_certificate_file: a Unix socket has no TLS"),
    ] {
        let reported = errors(&format!("{names}{file}"), &[]).join("\n");
        assert!(reported.contains(expected), "{reported}");
    }
    let reported = errors(unix, &[]).join("\n");
    assert!(reported.contains("server.sign_in_address: needs trusted_names"), "{reported}");
    for wrong in ["https://runners.example.com", "runners.example.com:8443", "a b", "/"] {
        let reported = errors(&format!("server.trusted_names = [{wrong:?}]"), &[]).join("\n");
        assert!(reported.contains("server.trusted_names[0]: write a host name"), "{reported}");
    }
}

#[test]
fn webhooks_name_the_files_of_their_secrets() {
    let secret = TempFile::new("s3cret\n");
    let file = format!(
        "[[webhooks]]\nsecret_files = [{:?}, \"/no/such/file\"]\n[[webhooks]]\nname = \"acme\"\n\
         secret_files = [{:?}]\n",
        secret.path(),
        secret.path()
    );
    let config = Config::load(Some(&TempFile::new(&file).path()), &no_variables).unwrap();
    let names: Vec<&str> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
    assert_eq!(names, ["", "acme"]);

    let file =
        "[[webhooks]]\nsecret_files = [\"/no/such/file\"]\n[[webhooks]]\nsecret = \"ghp_no\"\n";
    let reported = errors(file, &[]);
    let joined = reported.join("\n");
    for text in [
        "2: webhooks[0].secret_files[0]: cannot read that file",
        "4: webhooks[1].secret: unknown setting: did you mean `secret_files`?",
        "3: webhooks[1].name: another webhook has this name",
        "3: webhooks[1].secret_files: write a list of 1 to 4 file paths",
    ] {
        assert!(reported.iter().any(|line| line.starts_with(text)), "{text}\n{joined}");
    }
    assert!(!joined.contains("ghp_no"), "{joined}");
}
