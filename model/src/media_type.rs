//! The media types that inputs and outputs of models have.

/// The media type of tensors as JSON.
pub const TENSORS_MEDIA_TYPE: &str = "application/vnd.millrace.tensors+json";

/// The media types of the images that an image step decodes.
pub const IMAGE_MEDIA_TYPES: [&str; 5] = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];

/// A media type without its parameters, in lower case: `image/png` for `Image/PNG; q=1`.
pub fn media_type_essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
