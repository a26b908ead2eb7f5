//! `serve` and other commands with a store in Postgres.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use edgerunner_testkit::{Postgres, ports};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(30);

fn edgerunner(command: &str) -> Command {
    let mut edgerunner = Command::new(env!("CARGO_BIN_EXE_edgerunner"));
    edgerunner.arg(command).env_clear().envs([
        ("GITHUB_TOKEN", "token"),
        ("GITHUB_API_URL", "http://127.0.0.1:9"),
        ("DOCKER_HOST", "unix:///no/such/docker.sock"),
    ]);
    edgerunner
}

struct Serve {
    child: Child,
    lines: Receiver<String>,
}

impl Serve {
    fn start(store: (&str, &str)) -> Self {
        let address = || ports::free().unwrap().to_string();
        let mut child = edgerunner("serve")
            .envs([store])
            .envs([("SERVER_GRPC_ADDRESS", address()), ("SERVER_HTTP_ADDRESS", address())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines }
    }

    /// Waits for a line of the log, and returns it.
    fn says(&self, expected: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("it does not say {expected:?}"));
            if line.contains(expected) {
                return line;
            }
        }
    }

    fn end(mut self) -> Option<i32> {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(self.child.wait().unwrap().code()));
        match ended.recv_timeout(LIMIT) {
            Ok(code) => code,
            Err(_) => {
                let _ = kill_process(id, Signal::KILL);
                panic!("it does not end");
            }
        }
    }
}

#[test]
fn serve_waits_for_its_server_and_says_when_it_answers() {
    let server = Postgres::start().unwrap();
    let url = server.url(&server.database().unwrap());
    server.stop().unwrap();
    let serve = Serve::start(("STORE_URL", &url));
    let reason = serve.says("cannot reach the store");
    assert!(reason.contains("refused") && reason.contains(&url), "{reason}");
    server.run().unwrap();
    serve.says("the store answers");
    serve.says("serving");
    assert_eq!(serve.end(), Some(0));

    server.stop().unwrap();
    let serve = Serve::start(("STORE_URL", &url));
    serve.says("cannot reach the store");
    assert_eq!(serve.end(), Some(0));
}

#[test]
fn serve_ends_with_what_to_do_if_waiting_would_not_help() {
    let server = Postgres::start().unwrap();
    let output = edgerunner("serve").env("STORE_URL", server.url("nothing")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("create it with `createdb --owner=postgres NAME`"), "{said}");
}

#[test]
fn backup_names_the_program_that_does_it() {
    let output = edgerunner("backup")
        .arg("/tmp/copy.dump")
        .env("STORE_URL", "postgres://me@db/jobs")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "pg_dump --format=custom --schema=edgerunner --file=/tmp/copy.dump \
                    'postgres://me@db/jobs'";
    assert!(said.contains(expected), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// With the commands of `docs/operations.md`.
#[test]
fn a_dump_of_a_store_in_use_serves_in_its_place() {
    const DOCUMENT: &str = include_str!("../../docs/operations.md");
    let server = Postgres::start().unwrap();
    let database = server.database().unwrap();
    let url = server.url(&database);
    let run = |program: &str| {
        let line = DOCUMENT.lines().find(|line| line.starts_with(&format!("{program} "))).unwrap();
        let mut command = server.command(program).unwrap();
        // A shell removes the quotes.
        command.args(line.split(' ').skip(1).map(|word| {
            word.replace("'postgres://edgerunner@db.example.com/edgerunner'", &url)
                .replace("/var/backups/", "")
        }));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    };
    let serve = Serve::start(("STORE_URL", &url));
    serve.says("serving");
    let count = || {
        let count = "SELECT string_agg(pool, ',') FROM edgerunner.draining";
        server.sql(&database, count).unwrap()
    };
    server.sql(&database, "INSERT INTO edgerunner.draining VALUES ('gpu')").unwrap();
    run("pg_dump");
    assert_eq!(serve.end(), Some(0));
    server.sql(&database, "INSERT INTO edgerunner.draining VALUES ('other')").unwrap();
    run("pg_restore");
    assert_eq!(count(), "gpu");
    let serve = Serve::start(("STORE_URL", &url));
    serve.says("serving");
    assert_eq!(serve.end(), Some(0));
}

#[test]
fn migrate_copies_what_serve_stored_in_sqlite() {
    let server = Postgres::start().unwrap();
    let url = server.url(&server.database().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edgerunner.db");
    let migrate = |url: Option<&str>| {
        let mut migrate = edgerunner("store");
        migrate.args(["migrate", "--from"]).arg(&path);
        migrate.envs(url.map(|url| ("STORE_URL", url)));
        let output = migrate.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = migrate(None);
    assert!(code == Some(1) && said.contains("nowhere to copy to"), "{said}");
    let (code, said) = migrate(Some(&url));
    assert!(code == Some(1) && said.contains("there is no such file"), "{said}");
    let serve = Serve::start(("STORE_PATH", path.to_str().unwrap()));
    serve.says("serving");
    let (code, said) = migrate(Some(&url));
    assert!(code == Some(64) && said.contains("is using it"), "{said}");
    assert_eq!(serve.end(), Some(0));
    let (code, said) = migrate(Some(&url));
    assert!(code == Some(0) && said.contains("jobs: 0") && said.contains("hooks: 0"), "{said}");
}
