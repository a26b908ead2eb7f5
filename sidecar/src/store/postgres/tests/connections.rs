//! Connections: which are refused, and what the error says to do.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use edgerunner_testkit::{Postgres as Server, postgres::PASSWORD};
use tempfile::TempDir;

use super::{connect, refusal, settings, shared};
use crate::{
    config::{Certificates, Database as Settings},
    store::{
        Store,
        tests::{Database as _, Postgres, deliver, delivery},
    },
};
use edgerunner_scheduler::model::JobState;

/// The error of a database on the shared server.
async fn assert_refused(settings: &Settings, expected: &str) {
    let error = refusal(settings).await;
    assert!(error.to_string().contains(expected), "{error}");
    assert!(!error.is_unreachable(), "{error}");
    assert!(!error.to_string().contains(PASSWORD), "{error}");
}

fn password(text: &str) -> (TempDir, Option<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, text).unwrap();
    (directory, Some(file))
}

#[tokio::test]
async fn an_unusable_schema_is_rejected_and_left_unchanged() {
    let (store, server, database) = shared().await;
    drop(store);
    let url = settings(&server.url(&database));
    server.sql(&database, "UPDATE edgerunner.schema_version SET version = 99").unwrap();
    assert_refused(&url, "written by a newer edgerunner (schema 99").await;

    let other = server.database().unwrap();
    server.sql(&other, "CREATE SCHEMA edgerunner; CREATE TABLE edgerunner.theirs ()").unwrap();
    assert_refused(&settings(&server.url(&other)), "belongs to another program").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'edgerunner'";
    assert_eq!(server.sql(&other, tables).unwrap(), "1");
}

#[tokio::test]
async fn a_user_may_own_just_the_schema() {
    let server = Server::shared();
    let database = server.database().unwrap();
    let url = format!("{}?sslmode=disable", server.url_of("limited", "127.0.0.1", &database));
    assert_refused(&settings(&url), "CREATE SCHEMA edgerunner AUTHORIZATION").await;
    server.sql(&database, "CREATE SCHEMA edgerunner AUTHORIZATION limited").unwrap();
    let store = connect(&url).await.unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_be_written_to_is_rejected() {
    let server = Server::shared();
    let database = server.database().unwrap();
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    server.sql("postgres", &read_only).unwrap();
    assert_refused(&settings(&server.url(&database)), "default_transaction_read_only").await;
    let other = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0";
    server.sql("postgres", other).unwrap();
    assert_refused(&settings(&server.url("latin")), "encoding LATIN1").await;
}

#[tokio::test]
async fn the_next_host_is_used_if_one_does_not_answer_or_is_a_standby() {
    let standby = Server::start().unwrap();
    standby.stop().unwrap();
    standby.write("standby.signal", "").unwrap();
    standby.run().unwrap();
    assert_refused(&settings(&standby.url("postgres")), "is a standby").await;

    let primary = Server::shared();
    let database = primary.database().unwrap();
    let closed = edgerunner_testkit::ports::free().unwrap().port();
    let hosts = |last| {
        format!(
            "postgres://postgres@127.0.0.1:{closed},127.0.0.1:{},127.0.0.1:{last}/{database}?\
             sslmode=disable&target_session_attrs=read-write",
            standby.port(),
        )
    };
    let store = connect(&hosts(primary.port())).await.unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    // The standby may be promoted.
    let error = refusal(&settings(&hosts(closed))).await;
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_an_error_that_says_what_to_do() {
    let server = Server::shared();
    let database = server.database().unwrap();
    let plain = |user| {
        settings(&format!("{}?sslmode=disable", server.url_of(user, "127.0.0.1", &database)))
    };
    assert_refused(&settings(&server.url("nothing")), "does not exist: create it with").await;
    assert_refused(&plain("nobody"), "check the user in store.url").await;
    assert_refused(&plain("secured"), "set store.password_file").await;
    assert_refused(&plain("tls_only"), "remove sslmode=disable").await;
    let (_wrong, password_file) = password("wrong");
    let wrong = Settings { password_file, ..plain("secured") };
    assert_refused(&wrong, "the file that store.password_file names").await;
    let missing = Settings { password_file: Some("/no/such/file".into()), ..plain("secured") };
    assert_refused(&missing, "store.password_file: cannot read that file").await;

    let closed = edgerunner_testkit::ports::free().unwrap();
    let error = refusal(&settings(&format!("postgres://{closed}/x?sslmode=disable"))).await;
    assert!(error.is_unreachable() && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_password_may_be_replaced_while_the_store_is_open() {
    let server = Server::start().unwrap();
    let database = server.database().unwrap();
    let url = format!("{}?sslmode=disable", server.url_of("secured", "127.0.0.1", &database));
    let (_directory, password_file) = password(&format!("{PASSWORD}\n"));
    let settings = Settings { password_file: password_file.clone(), ..settings(&url) };
    let (store, _closed) = Store::connect(&settings, |_| {}).await.unwrap();
    server.sql("postgres", "ALTER ROLE secured PASSWORD 'another'").unwrap();
    fs::write(password_file.unwrap(), "another").unwrap();
    server.stop().unwrap();
    server.run().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = deliver(&store, delivery("a", 1, JobState::Queued)).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_server_of_an_encrypted_connection_is_checked_as_sslmode_says() {
    let server = Server::shared();
    let database = server.database().unwrap();
    let url = |host, mode: &str| {
        let mut settings =
            settings(&format!("{}{mode}", server.url_of("tls_only", host, &database)));
        settings.ca = crate::config::read_ca(&server.ca_file()).unwrap();
        settings
    };
    let untrusted = |host, mode| Settings { ca: Certificates::new(), ..url(host, mode) };
    for trusted in [
        url("localhost", ""),
        url("127.0.0.1", "?sslmode=verify-ca"),
        untrusted("127.0.0.1", "?sslmode=require"),
    ] {
        let (store, _closed) = Store::connect(&trusted, |_| {}).await.unwrap();
        deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    }
    // With a password, which is bound to the certificate.
    let (_directory, password_file) = password(PASSWORD);
    let secured = server.url_of("secured", "localhost", &database);
    let secured = format!("{secured}?channel_binding=require").parse().unwrap();
    let secured = Settings { url: secured, password_file, ..url("localhost", "") };
    Store::connect(&secured, |_| {}).await.unwrap();
    assert_refused(&url("127.0.0.1", ""), "check the host in store.url").await;
    assert_refused(&untrusted("localhost", ""), "store.ca_file").await;
    assert_refused(&untrusted("localhost", "?sslmode=verify-ca"), "store.ca_file").await;
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls() {
    let server = Server::shared();
    let url = server.socket_url(&server.database().unwrap());
    let (store, _closed) = Postgres::at(&url).open().await;
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    assert_eq!(store.location(), url);
}
