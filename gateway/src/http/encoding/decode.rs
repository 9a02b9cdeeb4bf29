//! Decodes gzip and zstd, up to a limit of decoded bytes.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{DCtx, DParameter, get_error_name};

/// Decoders of zstd over HTTP support windows up to 8 MiB (RFC 9659). A larger one would need more memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The first bytes of a frame, and of a frame without content, whose first 4 bits are free (RFC 8878, section 3.1).
const ZSTD_FRAME: u32 = 0xFD2F_B528;
const ZSTD_SKIPPABLE_FRAME: u32 = 0x184D_2A50;

/// Decodes all members of a gzip stream. The result is longer than `limit_bytes` if the stream decodes to more.
pub(crate) fn gzip(encoded: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    MultiGzDecoder::new(encoded).take(beyond(limit_bytes, 0)).read_to_end(&mut decoded)?;
    Ok(decoded)
}

/// Decodes all frames of a zstd stream. The result is longer than `limit_bytes` if the stream decodes to more.
pub(crate) fn zstd(encoded: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let (mut decoded, mut rest) = (Vec::new(), encoded);
    let mut context = DCtx::create();
    context
        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
        .map_err(|code| io::Error::other(get_error_name(code)))?;
    while !rest.is_empty() && decoded.len() <= limit_bytes {
        // The library also decodes formats from before RFC 8878, with code that is seldom tested.
        if !is_frame(rest) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame has an unknown beginning"));
        }
        let mut frame = Decoder::with_context(rest, &mut context).single_frame();
        frame.by_ref().take(beyond(limit_bytes, decoded.len())).read_to_end(&mut decoded)?;
        rest = frame.finish();
    }
    Ok(decoded)
}

fn is_frame(bytes: &[u8]) -> bool {
    let Some(magic) = bytes.first_chunk().map(|first| u32::from_le_bytes(*first)) else { return false };
    magic == ZSTD_FRAME || magic & !0xF == ZSTD_SKIPPABLE_FRAME
}

/// The number of bytes to read after `decoded` ones, so that a result over the limit has one byte too many.
fn beyond(limit_bytes: usize, decoded: usize) -> u64 {
    (limit_bytes as u64 + 1).saturating_sub(decoded as u64)
}
