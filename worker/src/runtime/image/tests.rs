use ::image::{GrayImage, Luma, Rgb, RgbImage};
use model::IMAGE_MEDIA_TYPES;

use super::*;

mod formats;

fn step(width: u32, height: u32, channels: usize) -> ImageStep {
    ImageStep { width, height, channels, resize: None, scale: 1.0, mean: Vec::new(), std: Vec::new() }
}

fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn values(step: ImageStep, file: &[u8]) -> Vec<f32> {
    let tensor = ImagePreprocessor::new(step, "image").apply(ImageFormat::Png, file).unwrap();
    let values: Vec<f32> = tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(values.len() as i64, tensor.shape.iter().product::<i64>());
    values
}

#[test]
fn an_image_of_the_right_size_is_only_normalized_channel_by_channel() {
    let image = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([10, 20, 30]) } else { Rgb([40, 50, 60]) });
    let step = ImageStep { scale: 0.5, mean: vec![1.0, 2.0, 3.0], std: vec![2.0, 4.0, 1.0], ..step(2, 1, 3) };
    // (10·½ − 1)/2, (40·½ − 1)/2; green; blue.
    assert_eq!(values(step, &file(image, ImageFormat::Png)), [2.0, 9.5, 2.0, 5.75, 12.0, 27.0]);
}

#[test]
fn colours_become_gray_and_gray_becomes_colours() {
    let red = RgbImage::from_pixel(1, 1, Rgb([255, 0, 0]));
    assert_eq!(values(step(1, 1, 1), &file(red, ImageFormat::Png)), [76.0]);
    let gray = GrayImage::from_pixel(1, 1, Luma([7]));
    assert_eq!(values(step(1, 1, 3), &file(gray, ImageFormat::Png)), [7.0, 7.0, 7.0]);
}

#[test]
fn the_centre_is_cropped() {
    let image = GrayImage::from_fn(7, 3, |x, y| Luma([(y * 10 + x) as u8]));
    // The height fits, so nothing is resized: two columns are cut on either side.
    assert_eq!(values(step(3, 3, 1), &file(image, ImageFormat::Png)), [2., 3., 4., 12., 13., 14., 22., 23., 24.]);
}

#[test]
fn a_half_pixel_is_rounded_to_even_as_in_torchvision() {
    assert_eq!((centred(6, 3), centred(8, 3), centred(10, 3), centred(3, 3)), (2, 2, 4, 0));
}

#[test]
fn reduction_is_antialiased_as_pillow_does_it() {
    // Pillow: Image.new("L", (8, 1)), putdata([0, 0, 0, 0, 255, 255, 255, 255]), resize((2, 1), BILINEAR).
    let step_edge = GrayImage::from_fn(8, 8, |x, _| Luma([if x < 4 { 0 } else { 255 }]));
    assert_eq!(values(step(2, 2, 1), &file(step_edge, ImageFormat::Png)), [36.0, 219.0, 36.0, 219.0]);
    // Fine stripes become even gray instead of one of the stripes.
    let stripes = GrayImage::from_fn(64, 64, |x, _| Luma([if x % 2 == 0 { 0 } else { 200 }]));
    assert_eq!(values(step(4, 4, 1), &file(stripes, ImageFormat::Png))[..4], [98.0, 100.0, 100.0, 102.0]);
    // putdata([x * x % 251 for x in range(16)]), resize((5, 1), BILINEAR): not a whole factor.
    let curve = GrayImage::from_fn(16, 16, |x, _| Luma([(x * x % 251) as u8]));
    assert_eq!(values(step(5, 5, 1), &file(curve, ImageFormat::Png))[..5], [3.0, 20.0, 58.0, 116.0, 186.0]);
}

#[test]
fn the_shorter_side_is_resized_and_the_longer_rounded_down() {
    let resized = |resize, width, height| {
        let step = ImageStep { resize, ..step(224, 224, 3) };
        ImagePreprocessor::new(step, "image").size_before_crop(width, height)
    };
    assert_eq!(resized(Some(256), 640, 480), (341, 256));
    assert_eq!(resized(Some(256), 480, 641), (256, 341));
    assert_eq!(resized(None, 640, 480), (298, 224));
    assert_eq!(resized(None, 100, 100), (224, 224));
}

#[test]
fn every_format_is_read_by_its_media_type() {
    let image = RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 16) as u8, (y * 16) as u8, 128]));
    for media_type in IMAGE_MEDIA_TYPES {
        let format = format_of(media_type).unwrap();
        let tensor =
            ImagePreprocessor::new(step(8, 8, 3), "image").apply(format, &file(image.clone(), format)).unwrap();
        assert_eq!(tensor.shape, [3, 8, 8], "{media_type}");
    }
    assert_eq!(format_of("image/tiff"), None);
}

#[test]
fn a_broken_file_is_a_fault_of_the_body() {
    let jpeg = file(RgbImage::new(64, 64), ImageFormat::Jpeg);
    let preprocessor = ImagePreprocessor::new(step(8, 8, 3), "image");
    for broken in [&jpeg[..20], &b"\xff\xd8\xff not a jpeg"[..], b"", b"GIF89a"] {
        let fault = preprocessor.apply(ImageFormat::Jpeg, broken).unwrap_err();
        assert_eq!((fault.kind, fault.field.as_str()), (InputFaultKind::Malformed, "body"));
        assert!(fault.message.starts_with("not a readable image/jpeg: "), "{fault}");
    }
    // A PNG with the media type of a JPEG is refused too: the content is not sniffed.
    assert!(preprocessor.apply(ImageFormat::Jpeg, &file(RgbImage::new(8, 8), ImageFormat::Png)).is_err());
}

#[test]
fn a_small_file_cannot_claim_a_huge_image() {
    // Only the header of a BMP, 16,384 pixels wide and high.
    let mut bmp = file(RgbImage::new(1, 1), ImageFormat::Bmp);
    for (size, fault) in [(16_384_u32, "is more than 64000000 pixels"), (100_000, "not a readable image/bmp")] {
        bmp[18..22].copy_from_slice(&size.to_le_bytes());
        bmp[22..26].copy_from_slice(&size.to_le_bytes());
        let found = ImagePreprocessor::new(step(8, 8, 3), "image").apply(ImageFormat::Bmp, &bmp).unwrap_err();
        assert!(found.message.contains(fault), "{found}");
    }
    let strip = file(GrayImage::new(16_000, 1), ImageFormat::Png);
    let found = ImagePreprocessor::new(step(224, 224, 1), "image").apply(ImageFormat::Png, &strip).unwrap_err();
    assert!(found.message.contains("too long and thin"), "{found}");
}
