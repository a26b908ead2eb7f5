//! Disk space: what was made for this installation is removed while the disk is nearly full.
//!
//! That are images that it pulled itself and that no pool names any more, and tool caches that no
//! runner has. The Engine refuses to remove what a container uses.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bollard::{
    errors::Error as Bollard, models::ImageInspect, query_parameters::RemoveImageOptions,
};
use tracing::info;

use super::{
    CALL_LIMIT, Docker, Product,
    engine::{DISK_LIMIT, directory},
    from_bollard,
    image::{familiar, with_tag},
    leftovers::Swept,
    within,
};
use crate::{
    disk,
    provider::{MadeSpace, PulledImage, error::Error},
};

/// In place of a tag, on some Engines.
const UNTAGGED: &str = "<none>:<none>";

/// Images that were pulled and that nobody has recorded yet.
#[derive(Debug, Default)]
pub(super) struct Pulled(Mutex<Vec<PulledImage>>);

impl Pulled {
    fn images(&self) -> MutexGuard<'_, Vec<PulledImage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docker {
    /// Those since the last call.
    pub(crate) fn take_pulled(&self) -> Vec<PulledImage> {
        std::mem::take(&mut *self.pulled.images())
    }

    /// Ids of all images of the Engine.
    pub(super) async fn image_ids(&self) -> Result<HashSet<String>, Error> {
        let call = "list images";
        let listed = self.connection.get("/images/json", &[]);
        let listed = within(CALL_LIMIT, call, async {
            listed.await.map_err(|error| from_bollard(call, &error))
        });
        let listed = listed.await?;
        let ids = listed.as_array().into_iter().flatten().filter_map(|it| it["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Notes the image that this name has now, if a pull has brought it. One that cannot be noted
    /// is never removed.
    pub(super) async fn note_pulled(&self, name: &str, before: &HashSet<String>) {
        let Ok(Some(found)) = self.inspect_present(name).await else { return };
        let Some(id) = found.id.filter(|id| !before.contains(id)) else { return };
        if let Ok(Some(engine)) = self.id().await {
            self.pulled.images().push(PulledImage { engine, id, name: name.to_owned() });
        }
    }

    /// Removes what this installation made and nobody needs, one after the other and the oldest
    /// first, until `enough_mib` are free. `pulled`: the images that it pulled, the oldest first.
    /// `named`: the images that pools name.
    pub(crate) async fn make_space(
        &self,
        pulled: &[PulledImage],
        named: &[String],
        enough_mib: u64,
    ) -> Result<MadeSpace, Error> {
        // Of one that cannot be identified no image is on record.
        let engine = self.id().await?.unwrap_or_default();
        let mut needed = HashSet::new();
        for name in named {
            // Without an answer it is unknown what is needed.
            needed.extend(self.inspect_present(&with_tag(name)).await?.and_then(|found| found.id));
        }
        let mut made = MadeSpace::default();
        let here = pulled.iter().filter(|it| it.engine == engine && !needed.contains(&it.id));
        for image in here {
            if self.has_space(enough_mib).await {
                return Ok(made);
            }
            match self.remove_pulled(image).await {
                Ok(true) => made.gone.push(image.clone()),
                Ok(false) => {}
                Err(error) => made.failed.push(error),
            }
        }
        let mut swept = Swept::default();
        for cache in self.unused_tool_caches().await? {
            if self.has_space(enough_mib).await {
                break;
            }
            info!(volume = cache, "removing a tool cache: the disk is nearly full");
            self.remove_volume(&cache, &mut swept).await;
        }
        made.tool_caches = swept.removed;
        made.failed.append(&mut swept.failed);
        Ok(made)
    }

    async fn has_space(&self, enough_mib: u64) -> bool {
        let capacity = self.capacity().await.ok();
        // Nothing is removed for a disk that is not known.
        capacity.and_then(|it| it.free_disk_mib).is_none_or(|free_mib| free_mib >= enough_mib)
    }

    /// Whether it is there no more. It stays if anybody else has named it, or uses it.
    async fn remove_pulled(
        &self,
        PulledImage { id, name, .. }: &PulledImage,
    ) -> Result<bool, Error> {
        let Some(found) = self.inspect_present(id).await? else {
            return Ok(true);
        };
        if !has_no_other_name(&found, name) {
            return Ok(false);
        }
        let call = format!("remove image {name} ({id})");
        let removed = within(CALL_LIMIT, &call, async {
            let remove = || self.bollard.remove_image(id, None::<RemoveImageOptions>, None);
            let mut removed = remove().await;
            if removed.as_ref().is_err_and(is_for_lack_of_space) {
                removed = remove().await;
            }
            match removed {
                Ok(_) => Ok(true),
                Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(true),
                Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => Ok(false),
                Err(error) => Err(from_bollard(&call, &error)),
            }
        });
        let is_gone = removed.await?;
        if is_gone {
            info!(image = name, id, "removed an image that no pool names: the disk is nearly full");
        }
        Ok(is_gone)
    }

    /// Of the Engine. Podman answers with another one each time: its machine and the directory of its
    /// images identify it. `None` if that is not possible.
    async fn id(&self) -> Result<Option<String>, Error> {
        let info = self.info().await?;
        if self.version().await?.product == Product::Docker {
            return Ok(info["ID"].as_str().filter(|id| !id.is_empty()).map(str::to_owned));
        }
        let directory = directory(&info);
        if !self.is_here || directory == Path::new("") {
            return Ok(None);
        }
        let identify = move || disk::identity(&directory).ok().flatten();
        let directory = self.storage.run(DISK_LIMIT, identify).await.flatten();
        let machine = info["Name"].as_str().unwrap_or_default();
        Ok(directory.map(|directory| format!("podman-{machine}-{directory}")))
    }
}

/// Docker Engine then cannot write down that the image has no name any more. It removes an image that
/// has none.
fn is_for_lack_of_space(error: &Bollard) -> bool {
    matches!(error, Bollard::DockerResponseServerError { message, .. }
        if message.contains("no space left on device"))
}

/// Whether the image has at most the tag by which it was pulled.
fn has_no_other_name(found: &ImageInspect, name: &str) -> bool {
    let mut tags = found.repo_tags.iter().flatten().filter(|tag| **tag != UNTAGGED);
    tags.all(|tag| familiar(tag) == familiar(name))
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use axum::{
        Json,
        response::{IntoResponse as _, Response},
    };
    use serde_json::json;

    use super::*;
    use crate::provider::docker::fake_engine::{Engine, done, refused, unexpected};

    fn image(id: &str, engine: &str) -> PulledImage {
        let name = "ghcr.io/acme/runner:latest".to_owned();
        PulledImage { engine: engine.into(), id: id.into(), name }
    }

    /// An Engine whose disk is full until `needed` images are removed, with a data directory that
    /// does not exist: `None` of it is known.
    async fn engine(directory: &'static str) -> Engine {
        let tags = |tags: &[&str], id: &str| {
            Json(json!({ "Id": id, "RepoTags": tags, "RepoDigests": [] })).into_response()
        };
        Engine::start(move |call| match call {
            "GET /info" => {
                Json(json!({ "ID": "e1", "NCPU": 2, "DockerRootDir": directory })).into_response()
            }
            "GET /version" => version("Engine"),
            "GET /images/ghcr.io/acme/runner:latest/json" => {
                tags(&["ghcr.io/acme/runner:latest"], "now")
            }
            "GET /images/now/json" => tags(&["ghcr.io/acme/runner:latest"], "now"),
            "GET /images/old/json" | "GET /images/older/json" | "GET /images/used/json" => {
                tags(&[], "old")
            }
            "GET /images/tagged/json" => tags(&["keep:this"], "tagged"),
            "GET /images/gone/json" => refused(404, "no such image"),
            "DELETE /images/used" => refused(409, "image is being used by stopped container 0f"),
            "DELETE /images/old" | "DELETE /images/older" => Json(json!([])).into_response(),
            "GET /volumes" => Json(json!({ "Volumes": [] })).into_response(),
            call => unexpected(call),
        })
        .await
    }

    fn version(component: &str) -> Response {
        let components = json!([{ "Name": component, "Version": "4.3.1" }]);
        Json(json!({ "ApiVersion": "1.41", "Components": components })).into_response()
    }

    /// The calls that remove something.
    fn removals(engine: &Engine) -> Vec<String> {
        engine.calls().into_iter().filter(|call| call.starts_with("DELETE")).collect()
    }

    #[tokio::test]
    async fn only_images_of_ours_go_that_nobody_names_or_uses() {
        let engine = engine("/").await;
        let pulled = ["older", "used", "tagged", "now", "gone", "old"].map(|id| image(id, "e1"));
        let pulled: Vec<PulledImage> =
            pulled.into_iter().chain([image("elsewhere", "e2")]).collect();
        let named = ["ghcr.io/acme/runner".to_owned()];
        let made = engine.docker.make_space(&pulled, &named, u64::MAX).await.unwrap();
        assert_eq!(
            removals(&engine),
            ["DELETE /images/older", "DELETE /images/used", "DELETE /images/old"]
        );
        let gone: Vec<&str> = made.gone.iter().map(|image| &*image.id).collect();
        assert_eq!(gone, ["older", "gone", "old"]);
        assert!(made.failed.is_empty(), "{:?}", made.failed);
    }

    #[tokio::test]
    async fn an_image_goes_although_docker_cannot_write() {
        let removals = Arc::new(AtomicUsize::new(0));
        let full = Arc::clone(&removals);
        let engine = Engine::start(move |call| match call {
            "GET /info" => Json(json!({ "ID": "e1", "DockerRootDir": "/" })).into_response(),
            "GET /version" => version("Engine"),
            "GET /images/old/json" => Json(json!({ "Id": "old" })).into_response(),
            "DELETE /images/old" => match full.fetch_add(1, Ordering::Relaxed) {
                0 => refused(500, "write .tmp-repositories.json1: no space left on device"),
                _ => Json(json!([])).into_response(),
            },
            "GET /volumes" => Json(json!({ "Volumes": [] })).into_response(),
            call => unexpected(call),
        })
        .await;
        let made = engine.docker.make_space(&[image("old", "e1")], &[], u64::MAX).await.unwrap();
        assert_eq!((made.gone.len(), removals.load(Ordering::Relaxed)), (1, 2));
        assert!(made.failed.is_empty(), "{:?}", made.failed);
    }

    #[tokio::test]
    async fn nothing_goes_while_there_is_space_or_the_disk_is_not_known() {
        let pulled = [image("old", "e1")];
        for (directory, enough_mib) in [("/", 0), ("/no/such/directory", u64::MAX)] {
            let engine = engine(directory).await;
            let made = engine.docker.make_space(&pulled, &[], enough_mib).await.unwrap();
            assert_eq!((removals(&engine), made.gone), (vec![], vec![]));
        }
    }

    #[tokio::test]
    async fn nothing_goes_if_it_is_unknown_what_pools_need() {
        let engine = Engine::start(|call| match call {
            "GET /info" => Json(json!({ "ID": "e1", "DockerRootDir": "/" })).into_response(),
            "GET /version" => version("Engine"),
            call => unexpected(call),
        })
        .await;
        let named = ["runner".to_owned()];
        let made = engine.docker.make_space(&[image("old", "e1")], &named, u64::MAX).await;
        assert!(made.is_err());
        assert_eq!(removals(&engine), [""; 0]);
    }

    #[tokio::test]
    async fn podman_is_identified_by_its_machine_and_its_directory() {
        let answers = Arc::new(AtomicUsize::new(0));
        let id = async |machine: &'static str, directory: PathBuf| {
            let answers = Arc::clone(&answers);
            let engine = Engine::start(move |call| match call {
                "GET /info" => {
                    let id = answers.fetch_add(1, Ordering::Relaxed).to_string();
                    let info = json!({ "ID": id, "Name": machine, "DockerRootDir": directory });
                    Json(info).into_response()
                }
                "GET /version" => version("Podman Engine"),
                call => unexpected(call),
            })
            .await;
            engine.docker.id().await.unwrap()
        };
        let directories = ["one", "other"].map(|_| tempfile::TempDir::new().unwrap());
        let [one, other] = directories.each_ref().map(|it| it.path().to_owned());
        let first = id("build-1", one.clone()).await;
        assert_eq!(id("build-1", one.clone()).await, first);
        assert_eq!(id("build-1", "/no/such/directory".into()).await, None);
        // Not every file system records when a directory was created.
        if first.is_some() {
            assert_ne!(id("build-1", other).await, first);
            assert_ne!(id("build-2", one).await, first);
        }
    }

    #[tokio::test]
    async fn an_image_is_noted_if_the_pull_brought_it() {
        for (before, noted) in [("old", true), ("new", false)] {
            let inspections = Arc::new(AtomicUsize::new(0));
            let engine = Engine::start(move |call| match call {
                "GET /info" => Json(json!({ "ID": "e1" })).into_response(),
                "GET /version" => version("Engine"),
                "GET /images/json" => Json(json!([{ "Id": before }])).into_response(),
                "GET /images/runner:latest/json" => {
                    match inspections.fetch_add(1, Ordering::Relaxed) {
                        0 => refused(404, "no such image"),
                        _ => Json(json!({ "Id": "new" })).into_response(),
                    }
                }
                "POST /images/create" => done(),
                call => unexpected(call),
            })
            .await;
            let container =
                crate::config::Container { runner_image: "runner".into(), ..Default::default() };
            let images = crate::provider::Images::new(&container, &[]);
            engine.docker.prepare(&images).await.unwrap();
            let name = "runner:latest".to_owned();
            let image = PulledImage { engine: "e1".into(), id: "new".into(), name };
            let expected = if noted { vec![image] } else { Vec::new() };
            assert_eq!(engine.docker.take_pulled(), expected);
            assert_eq!(engine.docker.take_pulled(), []);
        }
    }
}
