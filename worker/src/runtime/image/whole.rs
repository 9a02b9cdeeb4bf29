//! Refuses files that are cut off. The decoders of JPEG and WebP fill the missing part of such an image.

use std::hash::{DefaultHasher, Hasher};
use std::io::Cursor;

use ::image::codecs::jpeg::JpegDecoder;
use ::image::{DynamicImage, ImageFormat};

/// The last marker of a JPEG file.
const END_OF_IMAGE: u8 = 0xD9;

/// Bytes that may continue the data of a scan. An image that lacks data differs with at least one of them.
const CONTINUATIONS: [u8; 3] = [0x55, 0xAA, 0x00];

/// Longer than the data of a block.
const CONTINUATION_BYTES: usize = 512;

/// Whether `file` contains all data of `image`, its decoded image before it was turned upright.
pub(super) fn is_whole(format: ImageFormat, file: &[u8], image: &DynamicImage) -> bool {
    match format {
        ImageFormat::Jpeg => match jpeg_end(file) {
            JpegEnd::Marker => true,
            JpegEnd::InSegment => false,
            JpegEnd::InData { has_all_scans } => has_all_scans && ignores_continuation(file, image),
        },
        ImageFormat::WebP => is_whole_riff(file),
        _ => true,
    }
}

/// The parts of a JPEG header that determine the memory to decode the file.
pub(super) struct JpegHeader {
    pub(super) components: u64,
    /// Whether the decoder keeps all coefficients: no scan defines whole pixels.
    pub(super) stores_coefficients: bool,
}

impl JpegHeader {
    /// Reads the segments up to the first scan. A file without a frame or a scan cannot be decoded.
    pub(super) fn read(file: &[u8]) -> Self {
        let (mut rest, mut components, mut is_progressive) = (file, 0, false);
        while let Some((marker, after)) = next_marker(rest) {
            rest = after;
            if matches!(marker, 0xD8 | 0x01) {
                continue;
            }
            let length = rest.first_chunk().map_or(2, |bytes| usize::from(u16::from_be_bytes(*bytes)).max(2));
            let Some((segment, after)) = rest.split_at_checked(length) else { break };
            match marker {
                0xC0..=0xC2 => {
                    components = segment.get(7).map_or(0, |count| u64::from(*count));
                    is_progressive = marker == 0xC2;
                }
                0xDA => {
                    let in_scan = segment.get(2).map_or(0, |count| u64::from(*count));
                    return Self { components, stores_coefficients: is_progressive || in_scan < components };
                }
                _ => {}
            }
            rest = after;
        }
        Self { components, stores_coefficients: false }
    }
}

/// The place where a JPEG file ends.
#[derive(Debug, PartialEq, Eq)]
enum JpegEnd {
    /// Behind the end-of-image marker.
    Marker,
    /// In a segment, such as a table.
    InSegment,
    /// In or behind the data of a scan. `has_all_scans`: the scans define all bits of all coefficients.
    InData { has_all_scans: bool },
}

/// Follows the segments of a JPEG file (ITU-T T.81, annex B). As the decoder, it skips bytes between segments.
fn jpeg_end(file: &[u8]) -> JpegEnd {
    let (mut rest, mut coefficients) = (file, Coefficients::default());
    while let Some((marker, after)) = next_marker(rest) {
        rest = after;
        if marker == END_OF_IMAGE {
            return JpegEnd::Marker;
        }
        // The start of an image and TEM have no segment.
        if matches!(marker, 0xD8 | 0x01) {
            continue;
        }
        let Some(length) = rest.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes))) else {
            return JpegEnd::InSegment;
        };
        let Some((segment, after)) = rest.split_at_checked(length.max(2)) else { return JpegEnd::InSegment };
        match marker {
            0xC0..=0xC2 => coefficients.frame(&segment[2..]),
            0xDA => coefficients.scan(&segment[2..]),
            _ => {}
        }
        rest = after;
    }
    JpegEnd::InData { has_all_scans: coefficients.are_complete() }
}

/// The next marker that is not a restart marker or a byte of data, and the bytes behind it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let is_marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xFF | 0xD0..=0xD7);
    let at = bytes.windows(2).position(is_marker)?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

/// The coefficients of each component that the scans have defined so far.
#[derive(Default)]
struct Coefficients {
    /// For each component its id and, for each coefficient, the number of low bits that are not defined yet.
    undefined_bits: Vec<(u8, [u8; 64])>,
}

impl Coefficients {
    /// Reads a frame header without its length.
    fn frame(&mut self, header: &[u8]) {
        let components = header.get(6..).unwrap_or_default().chunks_exact(3);
        self.undefined_bits = components.map(|component| (component[0], [u8::MAX; 64])).collect();
    }

    /// Reads a scan header without its length.
    fn scan(&mut self, header: &[u8]) {
        let count = header.first().map_or(0, |count| usize::from(*count));
        let Some((components, &[first, last, bits])) = header.get(1..).and_then(|rest| {
            let (components, end) = rest.split_at_checked(2 * count)?;
            Some((components, end.first_chunk::<3>()?))
        }) else {
            return;
        };
        for component in components.chunks_exact(2) {
            let known = self.undefined_bits.iter_mut().filter(|(id, _)| *id == component[0]);
            for (_, undefined) in known {
                let coefficients = usize::from(first)..=usize::from(last).min(63);
                undefined.get_mut(coefficients).unwrap_or_default().fill(bits & 0x0F);
            }
        }
    }

    fn are_complete(&self) -> bool {
        !self.undefined_bits.is_empty()
            && self.undefined_bits.iter().all(|(_, bits)| bits.iter().all(|bits| *bits == 0))
    }
}

/// Whether further data changes nothing in the image of a JPEG file without an end marker: then only this marker is
/// missing. The decoder does not report whether it ran out of data.
fn ignores_continuation(file: &[u8], image: &DynamicImage) -> bool {
    // A byte 0xFF is half of a marker, or data whose second half is missing.
    let halves = file.iter().rev().take_while(|byte| **byte == 0xFF).count();
    let data = &file[..file.len() - halves];
    let image = digest(image);
    CONTINUATIONS.iter().all(|byte| {
        let continued = [data, &[*byte; CONTINUATION_BYTES], &[0xFF, END_OF_IMAGE]].concat();
        let decoded = JpegDecoder::new(Cursor::new(continued)).and_then(DynamicImage::from_decoder);
        decoded.is_ok_and(|decoded| digest(&decoded) == image)
    })
}

fn digest(image: &DynamicImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(image.as_bytes());
    hasher.finish()
}

/// Whether a RIFF file has the length that its header declares. Some writers leave out a last padding byte.
fn is_whole_riff(file: &[u8]) -> bool {
    let declared = file.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    declared.is_some_and(|declared| u64::from(declared) + 8 <= file.len() as u64 + 1)
}

#[cfg(test)]
mod tests;
