//! The step from an image file to a tensor. The results match torchvision's `Resize`, `CenterCrop`, `ToTensor` and
//! `Normalize`.

use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, RgbImage};
use bytes::Bytes;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use model::{Datatype, HostTensor, ImageStep, InputFault, InputFaultKind};

mod memory;
mod whole;

use memory::metadata_bytes;
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
        let (image, orientation) = decode(format, file)?;
        let (width, height) = (image.width(), image.height());
        let pixels = if self.step.channels == 1 { gray(image) } else { rgb(image) };
        let (pixels, width, height) = self.upright(pixels, width, height, orientation);
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

    /// Turns pixels upright. They are converted before, because two copies exist meanwhile.
    fn upright(&self, pixels: Vec<u8>, width: u32, height: u32, orientation: Orientation) -> (Vec<u8>, u32, u32) {
        if orientation == Orientation::NoTransforms {
            return (pixels, width, height);
        }
        let image = match self.step.channels {
            1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
            _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
        };
        let mut image = image.unwrap_or_default();
        image.apply_orientation(orientation);
        let (width, height) = (image.width(), image.height());
        (image.into_bytes(), width, height)
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

/// A decoder that has read the header of a file.
fn decoder<'f>(format: ImageFormat, file: &'f [u8]) -> ImageResult<impl ImageDecoder + 'f> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(metadata_bytes(file));
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // The frame of a GIF may be larger than its image.
    limits.max_alloc = Some(decoder.total_bytes().min(MAX_DECODER_BYTES));
    decoder.set_limits(limits)?;
    Ok(decoder)
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("an image of {width} × {height} is more than {MAX_PIXELS} pixels"));
    }
    Ok(())
}

/// Decodes an image. The orientation is the one to apply.
fn decode(format: ImageFormat, file: &[u8]) -> Result<(DynamicImage, Orientation), InputFault> {
    let name = format.to_mime_type();
    let malformed = |message: String| InputFault::new(InputFaultKind::Malformed, "body", message);
    let broken = |error: ::image::ImageError| malformed(format!("not a readable {name}: {error}"));
    let mut decoder = decoder(format, file).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height).map_err(malformed)?;
    if width == 0 || height == 0 {
        return Err(malformed(format!("not a readable {name}: it is empty")));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits.reserve(decoder.total_bytes()).map_err(broken)?;
    // An orientation that cannot be read is ignored, as image viewers do.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if !is_whole(format, file, &image) {
        return Err(malformed(format!("not a readable {name}: the file is cut off")));
    }
    Ok((image, orientation))
}

/// The colours of each pixel, without alpha.
fn rgb(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageRgba8(image) => without_alpha(image.into_raw()),
        image => image.into_rgb8().into_raw(),
    }
}

/// Moves the colours together in the same memory.
fn without_alpha(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / 4;
    for pixel in 0..count {
        pixels.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    pixels.truncate(3 * count);
    pixels
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
            rgb(colour).as_chunks().0.iter().map(|pixel| weighted(*pixel)).collect()
        }
    }
}

#[cfg(test)]
mod tests;
