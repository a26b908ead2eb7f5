//! What the services of `compose.yaml` need done before their program starts, since their images
//! have no shell.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

const USAGE: &str = "usage: edgerunner-entrypoint COMMAND

  docker-group PROGRAM [ARGUMENT…]      run it as user 65532 in the group of the Docker socket
  require NAME[=BEGINNING]…             fail unless these variables are set, and begin like this
  create-secret FILE                    write the webhook's secret: GITHUB_WEBHOOK_SECRET or, if the
                                        file has none yet, a random one
  with-secret FILE PROGRAM [ARGUMENT…]  run it with the file's secret in GITHUB_WEBHOOK_SECRET
  reachable HOST:PORT                   fail unless a TCP connection is accepted";

const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The user of the images.
const USER: u32 = 65532;
const SECRET: &str = "GITHUB_WEBHOOK_SECRET";
/// The length of a new secret, which is written in hexadecimal.
const SECRET_BYTES: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), String> {
    match arguments {
        ["docker-group", program, rest @ ..] => {
            let group = group_of(Path::new(DOCKER_SOCKET))?;
            // Changing the user also removes the other groups and all capabilities.
            exec(Command::new(program).args(rest).gid(group).uid(USER))
        }
        ["require", names @ ..] => require(names, variable),
        ["create-secret", file] => create_secret(Path::new(file), variable(SECRET)),
        ["with-secret", file, program, rest @ ..] => {
            let secret = match variable(SECRET) {
                Some(secret) => secret,
                None => fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
            };
            exec(Command::new(program).args(rest).env(SECRET, secret.trim()))
        }
        ["reachable", address] => reachable(address),
        _ => Err(USAGE.to_owned()),
    }
}

/// Empty variables count as absent: Compose passes those that are not set as empty ones.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Replaces this process. Returns only if that fails.
fn exec(command: &mut Command) -> Result<(), String> {
    let error = command.exec();
    Err(format!("cannot run {}: {error}", command.get_program().display()))
}

fn group_of(socket: &Path) -> Result<u32, String> {
    match fs::metadata(socket) {
        Ok(found) if found.file_type().is_socket() => Ok(found.gid()),
        // Docker creates a directory in place of a file that it cannot mount.
        _ => Err(format!("{} is not a socket: mount the Docker Engine's there", socket.display())),
    }
}

fn require(wanted: &[&str], variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let (mut missing, mut invalid) = (Vec::new(), Vec::new());
    for wanted in wanted {
        let (name, beginning) = wanted.split_once('=').unwrap_or((wanted, ""));
        match variable(name) {
            None => missing.push(name),
            Some(value) if !value.starts_with(beginning) => {
                invalid.push(format!("{name} does not begin with {beginning}"));
            }
            Some(_) => {}
        }
    }
    if !missing.is_empty() {
        invalid.push(format!("not set: {}", missing.join(", ")));
    }
    match invalid[..] {
        [] => Ok(()),
        _ => Err(format!(
            "{}. Correct .env; packaging/example.env describes each setting",
            invalid.join("; ")
        )),
    }
}

fn create_secret(file: &Path, given: Option<String>) -> Result<(), String> {
    let has_one = fs::metadata(file).is_ok_and(|found| found.len() > 0);
    let written = match given {
        Some(secret) => replace(file, &secret),
        None if has_one => Ok(()),
        None => random().and_then(|secret| replace(file, &secret)),
    };
    written.map_err(|error| format!("cannot write a secret to {}: {error}", file.display()))
}

fn random() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nobody sees a part of it. Everyone with the volume may read it: `docker compose exec` runs
/// commands as root, which may not read other users' files without capabilities.
fn replace(file: &Path, secret: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, secret)?;
    fs::set_permissions(&new, Permissions::from_mode(0o644))?;
    fs::rename(&new, file)
}

fn reachable(address: &str) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    for candidate in resolved {
        if TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT).is_ok() {
            return Ok(());
        }
    }
    Err(format!("{address} accepts no connection"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_secret_is_created_once_and_replaced_by_one_that_is_set() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("secret");
        let create = |given: Option<&str>| {
            create_secret(&file, given.map(str::to_owned)).unwrap();
            fs::read_to_string(&file).unwrap()
        };
        let first = create(None);
        assert_eq!(first.len(), 2 * SECRET_BYTES);
        assert_eq!(create(None), first);
        assert_eq!(create(Some("mine")), "mine");
        assert_eq!(create(None), "mine");
        fs::write(&file, "").unwrap();
        let second = create(None);
        assert!(second.len() == first.len() && second != first);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn all_missing_variables_are_named_in_one_message() {
        let set = |name: &str| (name == "A").then(|| "a".to_owned());
        assert_eq!(require(&["A"], set), Ok(()));
        let message = require(&["A", "B", "C"], set).unwrap_err();
        assert!(message.starts_with("not set: B, C. "), "{message}");
        assert_eq!(require(&["A=a"], set), Ok(()));
        let message = require(&["A=b", "B"], set).unwrap_err();
        assert!(message.starts_with("A does not begin with b; not set: B. "), "{message}");
    }

    #[test]
    fn the_group_is_that_of_a_socket() {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(group_of(&socket), Ok(fs::metadata(&socket).unwrap().gid()));
        for other in [directory.path(), &directory.path().join("nothing")] {
            let message = group_of(other).unwrap_err();
            assert!(message.contains("is not a socket"), "{message}");
        }
    }

    #[test]
    fn a_port_is_reachable_while_something_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(reachable(&address), Ok(()));
        drop(listener);
        assert!(reachable(&address).unwrap_err().contains("accepts no connection"));
    }

    #[test]
    fn anything_else_prints_how_it_is_used() {
        for arguments in [&[][..], &["docker-group"], &["create-secret"], &["serve"]] {
            assert_eq!(run(arguments), Err(USAGE.to_owned()));
        }
    }
}
