//! The memory that preparing an image takes. The header has all numbers for it, so it is known before any pixel is
//! decoded.

use ::image::metadata::Orientation;
use ::image::{ColorType, ImageDecoder, ImageFormat};

use super::ImagePreprocessor;
use super::whole::JpegHeader;

/// The memory of a decoder that does not depend on the image, such as tables and rows.
const FIXED_BYTES: u64 = 1 << 20;

/// The most memory for the colour profile and the texts of a file. They may be compressed.
pub(super) fn metadata_bytes(file: &[u8]) -> u64 {
    FIXED_BYTES + 2 * file.len() as u64
}

impl ImagePreprocessor {
    /// The most memory that [`ImagePreprocessor::apply`] takes, without `file`. Reads only the header. If the header
    /// cannot be read, this is the memory to find that out.
    pub fn memory(&self, format: ImageFormat, file: &[u8]) -> u64 {
        let least = 2 * FIXED_BYTES + metadata_bytes(file);
        let Ok(mut decoder) = super::decoder(format, file) else { return least };
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if super::check_size(width, height).is_err() {
            return least;
        }
        let decoded = decoder.total_bytes();
        let while_decoding = decoded + decoder_bytes(format, file, (width, height), decoded);
        let while_converting = decoded + self.converted_bytes(decoder.color_type(), pixels);
        let channel_bytes = pixels * self.step.channels as u64;
        let held = decoded.max(channel_bytes);
        let is_turned = decoder.orientation().is_ok_and(swaps_sides);
        let while_turning = if is_turned { held + channel_bytes } else { 0 };
        let (width, height) = if is_turned { (height, width) } else { (width, height) };
        let while_resizing = held + self.resizing_bytes(width, height);
        least + while_decoding.max(while_converting).max(while_turning).max(while_resizing)
    }

    /// The new memory of a conversion to the channels of the step.
    fn converted_bytes(&self, from: ColorType, pixels: u64) -> u64 {
        match (self.step.channels, from) {
            (1, ColorType::L8) | (3, ColorType::Rgb8 | ColorType::Rgba8) => 0,
            (1, ColorType::La8 | ColorType::L16 | ColorType::La16 | ColorType::Rgb8 | ColorType::Rgba8) => pixels,
            _ => 3 * pixels,
        }
    }

    /// The memory of the resized pixels, of those that are resized in one direction only, and of the tensor.
    fn resizing_bytes(&self, width: u32, height: u32) -> u64 {
        let (to_width, to_height) = self.size_before_crop(width, height);
        let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
        let resized = product(to_width, to_height).min(super::MAX_PIXELS);
        let between = product(to_width, height).max(product(width, to_height)).min(super::MAX_PIXELS);
        let tensor = product(self.step.width, self.step.height) * size_of::<f32>() as u64;
        (resized + between + tensor) * self.step.channels as u64
    }
}

fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// The memory of a decoder beside the `decoded` bytes of its result.
fn decoder_bytes(format: ImageFormat, file: &[u8], (width, height): (u32, u32), decoded: u64) -> u64 {
    let pixels = u64::from(width) * u64::from(height);
    let file_bytes = file.len() as u64;
    match format {
        ImageFormat::Jpeg => {
            let header = JpegHeader::read(file);
            // Blocks of up to 32 × 32 pixels fill the last row and column.
            let padded = u64::from(width + 32) * u64::from(height + 32);
            let coefficients = if header.stores_coefficients { 2 * header.components * padded } else { 0 };
            // Without an end marker, the image is decoded again and compared.
            let again = if file.ends_with(&[0xFF, 0xD9]) { 0 } else { decoded };
            coefficients + again + 3 * file_bytes
        }
        // The first frame, if it does not fill the image.
        ImageFormat::Gif => decoded,
        ImageFormat::WebP => {
            let is_animated = file.get(20).is_some_and(|flags| flags & 0b10 != 0);
            let per_pixel = match file.get(12..16) {
                Some(b"VP8 ") => 2,
                Some(b"VP8X") if is_animated => 16,
                _ => 8,
            };
            per_pixel * pixels + 2 * file_bytes
        }
        _ => 0,
    }
}
