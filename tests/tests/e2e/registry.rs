//! Image registries: one that requires a password, one that does not, and a mirror of that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::{ContainerConfig, ContainerCreateBody, PushImageInfo};
use bollard::query_parameters::{
    CommitContainerOptions, CreateContainerOptions, CreateImageOptions, PushImageOptions,
    RemoveContainerOptions, RemoveImageOptions, TagImageOptions, UploadToContainerOptions,
};
use edgerunner_testkit::programs::{RUNNER_IMAGE, command};
use edgerunner_testkit::{Process, client, eventually, ports};
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use edgerunner_tests::Swarm;
use edgerunner_tests::tools::registry;

pub(crate) struct Registry {
    address: SocketAddr,
    /// Those that may pull from it. The first one also pushes.
    engines: Vec<bollard::Docker>,
    _process: Process,
    directory: TempDir,
}

impl Registry {
    pub(crate) const USERNAME: &str = "puller";
    /// It occurs nowhere else, so that a leak can be searched for.
    pub(crate) const PASSWORD: &str = "registry-password-sesame";

    pub(crate) async fn start() -> Result<Self> {
        let directory = TempDir::new()?;
        let htpasswd = directory.path().join("htpasswd");
        let hash = bcrypt::hash(Self::PASSWORD, 4)?;
        std::fs::write(&htpasswd, format!("{}:{hash}\n", Self::USERNAME))?;
        let swarm = Swarm::from_environment()?;
        let address = swarm.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |swarm| swarm.gateway);
        let login = json!({ "auth": { "htpasswd": { "realm": "tests", "path": htpasswd } } });
        Self::serve(directory, address, login, 401, swarm).await
    }

    /// Without a password.
    pub(crate) async fn open() -> Result<Self> {
        Self::serve(TempDir::new()?, Ipv4Addr::LOCALHOST.into(), json!({}), 200, None).await
    }

    /// A mirror of `self` at this address of the machine.
    pub(crate) async fn mirror(&self, address: IpAddr) -> Result<Self> {
        let proxy = json!({ "proxy": { "remoteurl": format!("http://{}", self.address) } });
        Self::serve(TempDir::new()?, address, proxy, 200, None).await
    }

    /// `settings` are further ones of its configuration, and `status` is that of `/v2/`.
    async fn serve(
        directory: TempDir,
        address: IpAddr,
        settings: Value,
        status: u16,
        swarm: Option<Swarm>,
    ) -> Result<Self> {
        let path = |name: &str| directory.path().join(name);
        let address = SocketAddr::new(address, ports::free()?.port());
        let mut configuration = json!({
            "version": 0.1,
            "storage": { "filesystem": { "rootdirectory": path("images") } },
            "http": { "addr": address.to_string() },
        });
        if let (Value::Object(all), Value::Object(settings)) = (&mut configuration, settings) {
            all.extend(settings);
        }
        // JSON is valid YAML.
        std::fs::write(path("registry.yaml"), configuration.to_string())?;
        let mut serve = command(&registry()?);
        serve.arg("serve").arg(path("registry.yaml"));
        let process = Process::start("registry", serve, &path("registry.log"))?;
        eventually("the registry answers", async || {
            Ok((client::get(address, "/v2/").await?.status == status).then_some(()))
        })
        .await
        .with_context(|| std::fs::read_to_string(path("registry.log")).unwrap_or_default())?;
        let engines = match swarm {
            Some(swarm) => {
                let engines = swarm.engines.iter();
                engines.map(|host| bollard::Docker::connect_with_host(host)).collect()
            }
            None => bollard::Docker::connect_with_defaults().map(|docker| vec![docker]),
        };
        Ok(Self { address, engines: engines?, _process: process, directory })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The digests of what it has stored.
    pub(crate) fn blobs(&self) -> Result<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        let blobs = self.directory.path().join("images/docker/registry/v2/blobs/sha256");
        for prefix in std::fs::read_dir(blobs).into_iter().flatten() {
            for blob in std::fs::read_dir(prefix?.path())? {
                let blob = blob?;
                if blob.path().join("data").is_file() {
                    found.insert(blob.file_name());
                }
            }
        }
        Ok(found)
    }

    /// Its host and port, as in an image's name.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Pushes the runner's image under this name, and removes it from the Engine. Returns
    /// its digest.
    pub(crate) async fn push(&self, name: &str) -> Result<String> {
        let docker = &self.engines[0];
        let repository = self.image(name);
        docker.tag_image(RUNNER_IMAGE, Some(latest(&repository))).await?;
        let progress = self.push_latest(&repository).await?;
        let digests = docker.inspect_image(&repository).await?.repo_digests;
        self.forget(&repository).await?;
        digests
            .unwrap_or_default()
            .into_iter()
            .find_map(|digest| {
                Some(digest.strip_prefix(&repository)?.strip_prefix('@')?.to_owned())
            })
            .with_context(|| format!("no digest: {progress:?}"))
    }

    /// Pulls an image, as if a sidecar had done so before.
    pub(crate) async fn pull(&self, name: &str) -> Result<String> {
        self.pull_to(&self.engines[0], name).await
    }

    /// Pulls an image to this Engine, as somebody may do by hand.
    pub(crate) async fn pull_to(&self, docker: &bollard::Docker, name: &str) -> Result<String> {
        let image = self.image(name);
        let options = CreateImageOptions { from_image: Some(image.clone()), ..Default::default() };
        let pulled = docker.create_image(Some(options), None, Some(credentials()));
        pulled.try_collect::<Vec<_>>().await?;
        id(docker, &image).await?.context("it is not there")
    }

    /// Moves the tag `latest` of an image at the registry: pushes the runner's image with the variable
    /// `MOVED`. The Engine's own tag stays where it is. Returns the ID of the new image.
    pub(crate) async fn move_tag(&self, name: &str) -> Result<String> {
        let repository = self.image(name);
        let before = self.id(&repository).await?.context("it is not there")?;
        let moved = self.commit(&repository, "ENV MOVED=yes", None).await?;
        self.push_latest(&repository).await?;
        self.engines[0].tag_image(&before, Some(latest(&repository))).await?;
        Ok(moved)
    }

    /// Pushes the runner's image with another layer of this size under this name, and removes it from
    /// the Engine. Returns its ID.
    pub(crate) async fn push_large(&self, name: &str, mib: usize) -> Result<String> {
        let repository = self.image(name);
        let mut content = vec![0; mib << 20];
        // It must not shrink.
        fastrand::fill(&mut content);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let mut layer = tar::Builder::new(Vec::new());
        layer.append_data(&mut header, "content", &content[..])?;
        let id = self.commit(&repository, "ENV LARGE=yes", Some(layer.into_inner()?)).await?;
        self.push_latest(&repository).await?;
        self.forget(&repository).await?;
        Ok(id)
    }

    /// The Engine's own tag `latest` is then that of the runner's image with this change, and with these
    /// files. Returns the ID of the new image.
    async fn commit(
        &self,
        repository: &str,
        change: &str,
        files: Option<Vec<u8>>,
    ) -> Result<String> {
        let docker = &self.engines[0];
        let body = ContainerCreateBody {
            image: Some(RUNNER_IMAGE.into()),
            // Never started.
            cmd: Some(vec!["/home/runner/run.sh".into()]),
            ..Default::default()
        };
        let container = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
        let commit = CommitContainerOptions {
            container: Some(container.clone()),
            repo: Some(repository.to_owned()),
            tag: Some("latest".to_owned()),
            changes: Some(change.to_owned()),
            ..Default::default()
        };
        let committed = async {
            if let Some(files) = files {
                let root = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
                let files = bollard::body_full(files.into());
                docker.upload_to_container(&container, Some(root), files).await?;
            }
            docker.commit_container(commit, ContainerConfig::default()).await
        }
        .await;
        docker.remove_container(&container, None::<RemoveContainerOptions>).await?;
        Ok(committed?.id)
    }

    /// Returns what Docker reported.
    async fn push_latest(&self, repository: &str) -> Result<Vec<PushImageInfo>> {
        let options = PushImageOptions { tag: Some("latest".to_owned()), ..Default::default() };
        // Docker may cut its report of the progress off in the middle of a line.
        eventually("the image is pushed", async || {
            let (options, credentials) = (Some(options.clone()), Some(credentials()));
            let pushed = self.engines[0].push_image(repository, options, credentials);
            Ok(Some(pushed.try_collect().await?))
        })
        .await
    }

    /// Of an image that the first Engine has.
    pub(crate) async fn id(&self, image: &str) -> Result<Option<String>> {
        id(&self.engines[0], image).await
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Whether an Engine has it.
    pub(crate) async fn is_pulled(&self, image: &str) -> bool {
        let found = self.engines.iter().map(|docker| docker.inspect_image(image));
        join_all(found).await.iter().any(Result::is_ok)
    }

    /// Removes a pulled image's name from the Engine; the layers have other names.
    pub(crate) async fn forget(&self, image: &str) -> Result<()> {
        for docker in &self.engines {
            match docker.remove_image(image, None::<RemoveImageOptions>, None).await {
                // Another one has pulled it.
                Err(Error::DockerResponseServerError { status_code: 404, .. })
                    if self.engines.len() > 1 => {}
                removed => drop(removed?),
            }
        }
        Ok(())
    }
}

/// Of an image that this Engine has.
pub(crate) async fn id(docker: &bollard::Docker, image: &str) -> Result<Option<String>> {
    match docker.inspect_image(image).await {
        Ok(found) => Ok(found.id),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn latest(repository: &str) -> TagImageOptions {
    TagImageOptions { repo: Some(repository.to_owned()), tag: Some("latest".to_owned()) }
}

fn credentials() -> DockerCredentials {
    DockerCredentials {
        username: Some(Registry::USERNAME.to_owned()),
        password: Some(Registry::PASSWORD.to_owned()),
        ..Default::default()
    }
}
