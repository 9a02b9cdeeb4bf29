//! The step from an image file to a tensor. The results match torchvision's `Resize`, `CenterCrop`, `ToTensor` and
//! `Normalize`.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use bytes::Bytes;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use model::{Datatype, HostTensor, ImageStep, InputFault, InputFaultKind};

mod whole;

use whole::is_whole;

/// The limits of an image. A file of some kilobytes can declare an image of gigabytes. The pictures of all cameras are
/// within these limits.
const MAX_SIDE: u32 = 16_384;
const MAX_PIXELS: u64 = 64_000_000;
const MAX_DECODER_BYTES: u64 = 512 << 20;

/// The format for a media type (without parameters, in lower case); see [`model::IMAGE_MEDIA_TYPES`].
pub fn format_of(essence: &str) -> Option<ImageFormat> {
    match essence {
        "image/png" => Some(ImageFormat::Png),
        "image/jpeg" => Some(ImageFormat::Jpeg),
        "image/webp" => Some(ImageFormat::WebP),
        "image/gif" => Some(ImageFormat::Gif),
        "image/bmp" => Some(ImageFormat::Bmp),
        _ => None,
    }
}

/// An image step that many threads can apply at once.
#[derive(Debug)]
pub struct ImagePreprocessor {
    step: ImageStep,
    name: String,
    /// For each channel, the FP32 bytes of each of the 256 values. A look-up is cheaper than arithmetic per pixel.
    normalized: Vec<[[u8; 4]; 256]>,
}

impl ImagePreprocessor {
    /// Applies `step`. The name of the tensor is `name`.
    pub fn new(step: ImageStep, name: impl Into<String>) -> Self {
        let table = |channel: usize| {
            let mean = step.mean.get(channel).copied().unwrap_or(0.0);
            let std = step.std.get(channel).copied().unwrap_or(1.0);
            std::array::from_fn(|value| ((value as f32 * step.scale - mean) / std).to_le_bytes())
        };
        let normalized = (0..step.channels).map(table).collect();
        Self { step, name: name.into(), normalized }
    }

    /// Decodes a file into the FP32 tensor `[channels, height, width]`.
    ///
    /// The file must match its media type, be complete, and have at most 64 million pixels.
    pub fn apply(&self, format: ImageFormat, file: &[u8]) -> Result<HostTensor, InputFault> {
        let image = decode(format, file)?;
        let (width, height) = (image.width(), image.height());
        let pixels = if self.step.channels == 1 { gray(image) } else { image.into_rgb8().into_raw() };
        let (pixels, width, height) = self.resized(pixels, width, height)?;
        Ok(HostTensor {
            name: self.name.clone(),
            datatype: Datatype::Fp32,
            shape: self.step.shape().to_vec(),
            data: self.cropped_and_normalized(&pixels, width, height),
        })
    }

    /// The size before the crop: the shorter side as in the step, the other side in proportion, rounded down.
    fn size_before_crop(&self, width: u32, height: u32) -> (u32, u32) {
        let in_proportion = |side: u32, from: u32, to: u32| (u64::from(side) * u64::from(to) / u64::from(from)) as u32;
        match self.step.resize {
            Some(shorter) if width <= height => (shorter, in_proportion(height, width, shorter)),
            Some(shorter) => (in_proportion(width, height, shorter), shorter),
            None => {
                // The smallest size that covers the crop in both directions.
                let (wide, high) = (self.step.width, self.step.height);
                if u64::from(width) * u64::from(high) <= u64::from(height) * u64::from(wide) {
                    (wide, in_proportion(height, width, wide))
                } else {
                    (in_proportion(width, height, high), high)
                }
            }
        }
    }

    fn resized(&self, pixels: Vec<u8>, width: u32, height: u32) -> Result<(Vec<u8>, u32, u32), InputFault> {
        let (to_width, to_height) = self.size_before_crop(width, height);
        if (to_width, to_height) == (width, height) {
            return Ok((pixels, width, height));
        }
        // If a picture is only one pixel high, resizing it would give more pixels than any real picture has.
        if u64::from(to_width) * u64::from(to_height) > MAX_PIXELS {
            let message = format!("an image of {width} × {height} is too long and thin to be resized");
            return Err(InputFault::new(InputFaultKind::Malformed, "body", message));
        }
        let resize = if self.step.channels == 1 { resize::<U8> } else { resize::<U8x3> };
        let pixels = resize(&pixels, (width, height), (to_width, to_height)).map_err(|error| {
            InputFault::new(InputFaultKind::Malformed, "body", format!("the image cannot be resized: {error}"))
        })?;
        Ok((pixels, to_width, to_height))
    }

    /// Takes the centre, separates the channels and looks up the normalized value of each pixel.
    fn cropped_and_normalized(&self, pixels: &[u8], width: u32, height: u32) -> Bytes {
        let (wide, high) = (self.step.width as usize, self.step.height as usize);
        let left = centred(width as usize, wide);
        let top = centred(height as usize, high);
        let channels = self.step.channels;
        let row_bytes = width as usize * channels;
        let mut data = Vec::with_capacity(channels * high * wide * size_of::<f32>());
        for (channel, normalized) in self.normalized.iter().enumerate() {
            for row in pixels.chunks_exact(row_bytes).skip(top).take(high) {
                let values = row.iter().skip(left * channels + channel).step_by(channels).take(wide);
                for value in values {
                    data.extend_from_slice(&normalized[usize::from(*value)]);
                }
            }
        }
        data.into()
    }
}

/// Resizes pixels of one type. `Resizer::resize` takes any of 13 types; compiling its code for all of them takes minutes.
fn resize<P: PixelTrait>(pixels: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>, String> {
    let source = TypedImageRef::<P>::from_buffer(from.0, from.1, pixels).map_err(|error| error.to_string())?;
    let mut resized = vec![0; to.0 as usize * to.1 as usize * size_of::<P>()];
    let mut target = TypedImage::<P>::from_buffer(to.0, to.1, &mut resized).map_err(|error| error.to_string())?;
    // Convolution with a filter as wide as the reduction is antialiasing.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| error.to_string())?;
    drop(target);
    Ok(resized)
}

/// The offset of a crop. A half is rounded to the even number, as in Python.
fn centred(size: usize, crop: usize) -> usize {
    (size.saturating_sub(crop) as f64 / 2.0).round_ties_even() as usize
}

/// Decodes an image and turns it upright.
fn decode(format: ImageFormat, file: &[u8]) -> Result<DynamicImage, InputFault> {
    let name = format.to_mime_type();
    let broken = |error: ::image::ImageError| {
        InputFault::new(InputFaultKind::Malformed, "body", format!("not a readable {name}: {error}"))
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let message = format!("an image of {width} × {height} is more than {MAX_PIXELS} pixels");
        return Err(InputFault::new(InputFaultKind::Malformed, "body", message));
    }
    if width == 0 || height == 0 {
        return Err(InputFault::new(InputFaultKind::Malformed, "body", format!("not a readable {name}: it is empty")));
    }
    limits.reserve(decoder.total_bytes()).map_err(broken)?;
    // An orientation that cannot be read is ignored, as image viewers do.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if !is_whole(format, file, &image) {
        let message = format!("not a readable {name}: the file is cut off");
        return Err(InputFault::new(InputFaultKind::Malformed, "body", message));
    }
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

/// The brightness of each pixel by the weights of ITU-R BT.601, which Pillow uses and models are trained with.
fn gray(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageLuma8(gray) => gray.into_raw(),
        DynamicImage::ImageLumaA8(_) | DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            image.into_luma8().into_raw()
        }
        colour => {
            let weighted = |[r, g, b]: [u8; 3]| {
                ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
            };
            colour.into_rgb8().pixels().map(|pixel| weighted(pixel.0)).collect()
        }
    }
}

#[cfg(test)]
mod tests;
