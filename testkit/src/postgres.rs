//! A Postgres server for tests, with Debian's programs: its own data directory, port and socket.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::ports;

/// Where Debian has the programs of each version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// The user that Debian's package creates. The server does not run as root.
const USER: &str = "postgres";
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(10);

/// The first rule that fits counts: the user `secured` needs a password, `tls_only` an encrypted
/// connection. All others need neither.
const HBA: &str = "
local   all secured   scram-sha-256
host    all secured   127.0.0.1/32 scram-sha-256
hostssl all tls_only  127.0.0.1/32 trust
host    all tls_only  127.0.0.1/32 reject
local   all all       trust
host    all all       127.0.0.1/32 trust
";
/// The password of `secured`.
pub const PASSWORD: &str = "do-not-print-this-password";
/// `limited` may do nothing but connect.
const ROLES: &str = "CREATE ROLE secured LOGIN SUPERUSER PASSWORD 'do-not-print-this-password';
    CREATE ROLE tls_only LOGIN SUPERUSER; CREATE ROLE limited LOGIN;";

/// A server that ends with this value, or with the process, and leaves nothing.
pub struct Postgres {
    programs: PathBuf,
    /// Readable for everyone, and short: the path of a socket may have 107 characters.
    directory: TempDir,
    port: u16,
    server: Mutex<Option<Child>>,
    /// PEM. The server's certificate is for `localhost`.
    authority: Authority,
    databases: AtomicU32,
    /// Removes what is left once nobody holds its standard input.
    janitor: (Child, Option<ChildStdin>),
}

impl Postgres {
    /// Creates and starts a server, which takes about 2 seconds.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let directory = tempfile::Builder::new().prefix("edgerunner-pg").tempdir_in("/tmp")?;
        let janitor = janitor(directory.path())?;
        if let Some((user, group)) = owner()? {
            chown(directory.path(), Some(user), Some(group))?;
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let authority = Authority::new()?;
        let this = Self {
            programs,
            directory,
            port: ports::free()?.port(),
            server: Mutex::new(None),
            authority,
            databases: AtomicU32::new(0),
            janitor,
        };
        this.create()?;
        this.run()?;
        this.sql("postgres", ROLES)?;
        Ok(this)
    }

    /// The server that all tests of this process share. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap_or_else(|error| panic!("{error:#}")))
    }

    fn create(&self) -> Result<()> {
        let mut initdb = self.command("initdb")?;
        // The server's own start would be slower, not safer.
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--username=postgres"]);
        initdb.args(["--auth=trust", "--pgdata"]).arg(self.data());
        run(initdb)?;
        let server = self.authority.issue("localhost")?;
        self.write("server.crt", &server.certificate)?;
        self.write("server.key", &server.key)?;
        self.write("ca.crt", &self.authority.certificate)?;
        self.write("pg_hba.conf", HBA)?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nssl = on\n\
             hba_file = '{1}/data/pg_hba.conf'\nmax_connections = 200\nshared_buffers = 32MB\n\
             log_min_messages = warning\n",
            self.port,
            self.directory.path().display(),
        );
        self.write("postgresql.auto.conf", &settings)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a file of the data directory.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data().join(name);
        let mut file = fs::File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        if let Some((user, group)) = owner()? {
            chown(&path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// Starts the server again after `stop` or `kill`, and waits until it answers.
    pub fn run(&self) -> Result<()> {
        let mut command = self.command("postgres")?;
        let log = self.directory.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log)?;
        command.arg("-D").arg(self.data()).stdout(log.try_clone()?).stderr(log);
        let child = command.stdin(Stdio::null()).spawn().context("cannot start postgres")?;
        *self.server() = Some(child);
        self.wait_until("answers", || self.sql("postgres", "SELECT 1").is_ok())
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the server, which ends all its sessions.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::INT)
    }

    /// Kills the server as a crash would.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let sessions = self.sessions()?;
        let Some(mut child) = self.server().take() else { return Ok(()) };
        kill_process(pid(child.id())?, signal)?;
        child.wait()?;
        // They hold its memory until they notice.
        self.wait_until("has ended with all sessions", || {
            sessions.iter().all(|session| !Path::new(&format!("/proc/{session}")).exists())
        })
    }

    /// Stops the server and its sessions in the middle of whatever they do, until `thaw`.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let server = self.server().as_ref().map(Child::id).context("the server does not run")?;
        kill_process(pid(server)?, signal)?;
        for session in self.sessions()? {
            // It may have ended meanwhile.
            let _ = kill_process(pid(session)?, signal);
        }
        Ok(())
    }

    /// The server's processes without the first one.
    fn sessions(&self) -> Result<Vec<u32>> {
        let Some(server) = self.server().as_ref().map(Child::id) else { return Ok(Vec::new()) };
        let mut sessions = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent.and_then(|parent| parent.parse().ok()) == Some(server) {
                sessions.push(id);
            }
        }
        Ok(sessions)
    }

    /// Creates an empty database and returns its name.
    pub fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    /// For a connection over TCP without TLS.
    pub fn url(&self, database: &str) -> String {
        format!("{}?sslmode=disable", self.url_of("postgres", "127.0.0.1", database))
    }

    /// For a connection over TCP as `secured`, `tls_only`, `limited` or `postgres`, without
    /// parameters. `localhost` is the name in the server's certificate.
    pub fn url_of(&self, user: &str, host: &str, database: &str) -> String {
        format!("postgres://{user}@{host}:{}/{database}", self.port)
    }

    /// For a connection over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let directory = self.directory.path().display();
        format!("postgres:///{database}?host={directory}&port={}&user=postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the CA that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.data().join("ca.crt")
    }

    /// Runs SQL as the superuser, and returns the rows that it finds, without headers.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
        psql.arg("-h").arg(self.directory.path()).args(["-p", &self.port.to_string()]);
        Ok(run(psql)?.trim_end().to_owned())
    }

    /// A program of the server's version, which the server's user runs.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.programs.join(program));
        if let Some((user, group)) = owner()? {
            command.uid(user).gid(group);
        }
        command.current_dir(self.directory.path());
        Ok(command)
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !is_so() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log"));
                bail!(
                    "not within {LIMIT:?}: Postgres {what}; its log:\n{}",
                    log.unwrap_or_default()
                );
            }
            pause();
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.thaw();
        if let Some(mut server) = self.server().take() {
            let _ = pid(server.id()).map(|id| kill_process(id, Signal::QUIT));
            let _ = server.wait();
        }
        let (janitor, input) = &mut self.janitor;
        drop(input.take());
        let _ = janitor.wait();
    }
}

/// Polls until it is so, for half a minute at most.
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two polls of a condition")]
fn pause() {
    sleep(INTERVAL);
}

/// Waits for the end of this process, however it ends, kills the server and removes its directory.
fn janitor(directory: &Path) -> Result<(Child, Option<ChildStdin>)> {
    const SCRIPT: &str = r#"cat >/dev/null
        if read -r server 2>/dev/null <"$0/data/postmaster.pid"; then
            sessions=$(ps -o pid= --ppid "$server")
            kill -KILL "$server" $sessions 2>/dev/null
        fi
        rm -rf "$0""#;
    let mut janitor = Command::new("sh")
        .args(["-c", SCRIPT])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C must not end it before its time.
        .process_group(0)
        .spawn()
        .context("cannot start sh")?;
    let input = janitor.stdin.take();
    Ok((janitor, input))
}

fn pid(id: u32) -> Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).context("not a process id")
}

/// Runs a program to its end and returns its output.
fn run(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The directory with the programs of the latest version that is installed.
pub fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    let usable = versions.filter(|programs| programs.join("initdb").exists());
    let version = |programs: &PathBuf| {
        let name = programs.parent()?.file_name()?.to_str()?;
        name.parse::<u32>().ok()
    };
    usable.max_by_key(version).context(
        "Postgres is missing: run `sudo apt-get install -y postgresql`, or `cargo xtask test`, \
         which does",
    )
}

/// Who runs the server: `None` if this process may.
fn owner() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.first() == Some(&USER));
    let [_, _, user, group, ..] = found.with_context(|| format!("no user {USER}"))?[..] else {
        bail!("/etc/passwd has an unusual line");
    };
    Ok(Some((user.parse()?, group.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_survives_what_tests_do_to_it_and_leaves_nothing() {
        let server = Postgres::start().unwrap();
        let database = server.database().unwrap();
        server.sql(&database, "CREATE TABLE kept AS SELECT 7 AS number").unwrap();
        let kept = || server.sql(&database, "SELECT number FROM kept").unwrap();
        server.stop().unwrap();
        server.run().unwrap();
        assert_eq!(kept(), "7");
        server.kill().unwrap();
        server.run().unwrap();
        server.freeze().unwrap();
        server.thaw().unwrap();
        assert_eq!(kept(), "7");
        let directory = server.directory.path().to_owned();
        server.freeze().unwrap();
        drop(server);
        assert!(!directory.exists());
    }
}
