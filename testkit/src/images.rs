//! Images of the machine's own Engine for other Engines.

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::query_parameters::ImportImageOptions;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};

/// An archive of images of the machine's own Engine.
pub async fn export(images: &[&str]) -> Result<Bytes> {
    let here = Docker::connect_with_defaults()?;
    let archive = here.export_images(images).try_collect::<BytesMut>().await;
    Ok(archive.with_context(|| format!("cannot export {}", images.join(", ")))?.freeze())
}

/// Loads such an archive. The images count, and not what the Engine says meanwhile: bollard calls
/// it an error if one of its lines arrives in two pieces.
pub async fn load(there: &Docker, images: &[&str], archive: Bytes) -> Result<()> {
    let body = bollard::body_full(archive);
    let said: Vec<_> =
        there.import_image(ImportImageOptions::default(), body, None).collect().await;
    for image in images {
        let found = there.inspect_image(image).await;
        found.with_context(|| format!("{image} was not loaded: {said:?}"))?;
    }
    Ok(())
}
