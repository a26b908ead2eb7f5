//! The steps that start containers: one mounts a folder of the job's work folder, as jobs with
//! `container:` do, another takes memory until it is killed.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, InspectContainerOptions, ListContainersOptions,
    StartContainerOptions, WaitContainerOptions,
};
use futures_util::TryStreamExt as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const IMAGE: &str = "job:latest";
const MESSAGE: &str = "message";
const ANSWER: &str = "answer";
const PORT: u16 = 8080;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The program inside the container: reads the message in the folder, writes an answer next to
/// it, and sends the message to everyone who connects.
pub fn serve_message(folder: &Path) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let message = std::fs::read_to_string(folder.join(MESSAGE))?;
    // Renaming makes the whole answer appear at once.
    let unfinished = folder.join("unfinished");
    std::fs::write(&unfinished, format!("{message}, seen"))?;
    std::fs::rename(unfinished, folder.join(ANSWER))?;
    for stream in listener.incoming() {
        // The client may have disconnected.
        let _ = stream?.write_all(message.as_bytes());
    }
    Ok(())
}

/// The program inside the other container.
pub fn take_memory() -> ! {
    let mut taken = Vec::new();
    loop {
        // Memory that is only reserved does not count.
        taken.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&taken);
    }
}

/// Returns one line of JSON, with the exit code of the container.
pub(super) async fn take_memory_inside() -> Result<String> {
    let docker = Docker::connect_with_defaults()?;
    import_image(&docker).await?;
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["/runner".to_owned(), "take-memory".to_owned()]),
        ..Default::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    let ends = docker.wait_container(&id, None::<WaitContainerOptions>).try_next().await;
    let exit_code = match ends {
        Ok(ended) => ended.context("Docker ended the response")?.status_code,
        // What the client makes of every code but 0.
        Err(Error::DockerContainerWaitError { code, .. }) => code,
        Err(error) => return Err(error.into()),
    };
    Ok(json!({ "exit_code": exit_code }).to_string())
}

/// Starts the container, and leaves it running. Returns one line of JSON: the answer in the work
/// folder, the message from the published port, and the names of all containers.
pub(super) async fn start(folder: PathBuf) -> Result<String> {
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
    let name = format!("of-{}", fastrand::u32(..));
    std::fs::write(folder.join(MESSAGE), &name)?;
    let docker = Docker::connect_with_defaults()?;
    import_image(&docker).await?;
    let port = format!("{PORT}/tcp");
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["/runner".to_owned(), "show".to_owned(), "/work".to_owned()]),
        exposed_ports: Some(vec![port.clone()]),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{}:/work", folder.display())]),
            // An empty binding publishes any free port.
            port_bindings: Some([(port, Some(vec![PortBinding::default()]))].into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
    docker.create_container(Some(options), body).await?;
    docker.start_container(&name, None::<StartContainerOptions>).await?;
    let answer = wait_for_answer(&folder.join(ANSWER)).await?;
    let heard = read_from_port(&docker, &name).await?;
    let everything = ListContainersOptions { all: true, ..Default::default() };
    let containers = docker.list_containers(Some(everything)).await?;
    let containers: Vec<_> = containers.into_iter().filter_map(|it| it.names).flatten().collect();
    Ok(json!({ "container": name, "answer": answer, "heard": heard, "containers": containers })
        .to_string())
}

/// Imports an image that contains only this program, with its libraries unless it is static.
async fn import_image(docker: &Docker) -> Result<()> {
    let mut archive = tar::Builder::new(Vec::new());
    // Docker cannot read GNU's format for sparse files.
    archive.sparse(false);
    archive.append_path_with_name("/proc/self/exe", "runner")?;
    for library in libraries(&std::fs::read_to_string("/proc/self/maps")?) {
        archive.append_path_with_name(library, library.trim_start_matches('/'))?;
    }
    let (repository, tag) = IMAGE.split_once(':').unwrap_or_default();
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        ..Default::default()
    };
    let content = bollard::body_full(archive.into_inner()?.into());
    docker.create_image(Some(options), Some(content), None).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// The loader and the shared libraries that are mapped into this process.
fn libraries(maps: &str) -> BTreeSet<&str> {
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.filter(|path| path.starts_with('/') && path.contains(".so")).collect()
}

/// Reads from the published port, which is on the job's localhost.
async fn read_from_port(docker: &Docker, name: &str) -> Result<String> {
    let container = docker.inspect_container(name, None::<InspectContainerOptions>).await?;
    let published = container
        .network_settings
        .and_then(|network| network.ports)
        .and_then(|ports| ports.into_values().flatten().flatten().find_map(|it| it.host_port))
        .context("the container publishes no port")?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, published.parse()?)).await?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await?;
    Ok(heard)
}

async fn wait_for_answer(file: &Path) -> Result<String> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        if let Ok(answer) = std::fs::read_to_string(file) {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "the container did not answer through the work folder");
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_is_found_once() {
        let maps = "\
55d0-55d1 r--p 00000000 fe:00 1 /home/runner/run.sh
7f00-7f01 r--p 00000000 fe:00 2 /lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00001000 fe:00 2 /lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 r--p 00000000 fe:00 3 /lib64/ld-linux-x86-64.so.2
7ffd-7ffe rw-p 00000000 00:00 0 [stack]
7fff-8000 rw-p 00000000 00:00 0
";
        let found: Vec<&str> = libraries(maps).into_iter().collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
