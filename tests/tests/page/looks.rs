//! The looks of the page, compared with reference images in `tests/tests/page/looks`.
//!
//! `UPDATE_EXPECT=1` writes the references again. The browser's clock stands still, and the states
//! are recorded ones.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::{self, FilterType as Scaling};
use image::{DynamicImage, ImageFormat, ImageReader, RgbImage};
use image_compare::rgb_hybrid_compare;

use crate::browser::{Browser, target};

/// A pixel whose surroundings, or whose colour, differ by more is different. The structure of text
/// with other anti-aliasing differs by less.
const DIFFERENCE_MAX: u8 = 120;
/// Different pixels of one image: about one letter.
const DIFFERENT_MAX: usize = 150;

/// Wider images are halved.
const WIDTH_MAX: u32 = 1_600;

/// The images that differ.
#[derive(Default)]
pub(crate) struct Looks(Vec<String>);

impl Looks {
    /// Compares what the window shows with the reference of this name.
    pub(crate) async fn compare(&mut self, browser: &Browser, name: &str) -> Result<()> {
        let shown = reduced(read(&browser.window().await?)?);
        let reference = references().join(format!("{name}.png"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            return write(&reference, &shown);
        }
        let actual = target("page-looks").join(format!("{name}.actual.png"));
        let Ok(expected) = std::fs::read(&reference) else {
            write(&actual, &shown)?;
            self.0.push(format!("{name}: there is no reference"));
            return Ok(());
        };
        let expected = read(&expected)?;
        if expected.dimensions() != shown.dimensions() {
            write(&actual, &shown)?;
            let (from, to) = (expected.dimensions(), shown.dimensions());
            self.0.push(format!("{name}: the size is {to:?} in place of {from:?}"));
            return Ok(());
        }
        // On most machines. Comparing their structure takes seconds.
        if expected == shown {
            return Ok(());
        }
        let difference = rgb_hybrid_compare(&expected, &shown)?.image.to_color_map().into_rgb8();
        let is_different = |pixel: &&image::Rgb<u8>| pixel.0.iter().any(|it| *it > DIFFERENCE_MAX);
        let different = difference.pixels().filter(is_different).count();
        if different > DIFFERENT_MAX {
            write(&actual, &shown)?;
            write(&target("page-looks").join(format!("{name}.difference.png")), &difference)?;
            self.0.push(format!("{name}: {different} pixels differ"));
        }
        Ok(())
    }

    /// Fails if any image differed.
    pub(crate) fn end(self) -> Result<()> {
        ensure!(
            self.0.is_empty(),
            "the page looks different:\n  {}\nSee NAME.actual.png and NAME.difference.png in {}. If \
             it is meant to, run the same with UPDATE_EXPECT=1",
            self.0.join("\n  "),
            target("page-looks").display()
        );
        Ok(())
    }
}

fn references() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/looks")
}

fn read(png: &[u8]) -> Result<RgbImage> {
    let image = ImageReader::with_format(Cursor::new(png), ImageFormat::Png).decode();
    Ok(image.context("no PNG")?.into_rgb8())
}

/// With 32 levels of each colour, which makes a reference half as large.
fn reduced(image: RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let mut image = match width > WIDTH_MAX {
        true => imageops::resize(&image, width / 2, height / 2, Scaling::Triangle),
        false => image,
    };
    for level in image.iter_mut() {
        *level = (*level >> 3) * 8 + 4;
    }
    image
}

fn write(path: &Path, image: &RgbImage) -> Result<()> {
    std::fs::create_dir_all(path.parent().context("no directory")?)?;
    let mut png = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive);
    DynamicImage::from(image.clone()).write_with_encoder(encoder)?;
    Ok(std::fs::write(path, png)?)
}
