//! What each format gives, against Pillow. `files.py` wrote the files and printed the values.

use super::*;

type Pixel = [u32; 5];

/// A file, its upright width and height, and some of its pixels: x, y, red, green, blue.
type Expected = (&'static str, &'static [u8], [u32; 2], [Pixel; 4]);

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("files/", $name)).as_slice())
    };
}

/// The pixels of `colours.bmp`, of which most files are copies.
const COLOURS: [Pixel; 4] = [[0, 0, 250, 10, 20], [5, 0, 255, 255, 255], [3, 2, 10, 240, 30], [0, 3, 250, 10, 20]];

fn expected() -> Vec<Expected> {
    let colours = [
        file!("colours.bmp"),
        file!("palette.png"),
        // Alpha is left out, as in Pillow's convert("RGB"). It is not blended with a background.
        file!("alpha.png"),
        file!("alpha.webp"),
        file!("palette_transparent.png"),
        // The first frame.
        file!("animated.gif"),
        file!("animated.webp"),
    ];
    let mut expected: Vec<Expected> = colours.into_iter().map(|(name, file)| (name, file, [6, 4], COLOURS)).collect();
    let mut add = |(name, file): (&'static str, &'static [u8]), size, pixels| expected.push((name, file, size, pixels));
    // An EXIF orientation turns the image upright.
    let turned = [[0, 0, 14, 216, 134], [7, 0, 0, 4, 115], [4, 8, 126, 97, 127], [0, 15, 245, 220, 140]];
    add(file!("turned.jpg"), [8, 16], turned);
    let turned = [[0, 0, 250, 10, 20], [3, 0, 250, 10, 20], [2, 3, 255, 255, 255], [0, 5, 255, 255, 255]];
    add(file!("turned.png"), [4, 6], turned);
    let cmyk = [[0, 0, 0, 0, 128], [15, 0, 240, 0, 128], [8, 4, 128, 128, 128], [0, 7, 0, 224, 128]];
    add(file!("cmyk.jpg"), [16, 8], cmyk);
    let progressive = [[0, 0, 0, 4, 115], [15, 0, 227, 8, 124], [8, 4, 127, 129, 128], [0, 7, 14, 216, 134]];
    add(file!("progressive.jpg"), [16, 8], progressive);
    // The upper byte of 16 bits. Pillow's convert("L") would clip to 255.
    let gray16 = [[0, 0, 0, 0, 0], [5, 0, 50, 50, 50], [3, 2, 32, 32, 32], [0, 3, 3, 3, 3]];
    add(file!("gray16.png"), [6, 4], gray16);
    let gray = [[0, 0, 83, 83, 83], [5, 0, 255, 255, 255], [3, 2, 147, 147, 147], [0, 3, 83, 83, 83]];
    add(file!("gray_alpha.png"), [6, 4], gray);
    expected
}

/// The format of a file by its name.
fn format(name: &str) -> ImageFormat {
    let (_, extension) = name.rsplit_once('.').unwrap();
    format_of(&format!("image/{}", extension.replace("jpg", "jpeg"))).unwrap()
}

#[test]
fn every_kind_of_image_has_the_values_that_pillow_reads() {
    for (name, file, [width, height], pixels) in expected() {
        // JPEG decoders differ by some values, because the inverse transform is not exact.
        let tolerance = if name.ends_with("jpg") { 4.0 } else { 0.0 };
        let tensor = ImagePreprocessor::new(step(width, height, 3), "image").apply(format(name), file).unwrap();
        let values: Vec<f32> = tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        for [x, y, colours @ ..] in pixels {
            for (channel, colour) in colours.into_iter().enumerate() {
                let found = values[((channel as u32 * height + y) * width + x) as usize];
                let difference = (found - colour as f32).abs();
                assert!(difference <= tolerance, "{name}: channel {channel} at {x}, {y} is {found}, not {colour}");
            }
        }
    }
}

#[test]
fn half_a_file_of_every_kind_is_refused() {
    for (name, file, [width, height], _) in expected() {
        let preprocessor = ImagePreprocessor::new(step(width, height, 3), "image");
        assert!(preprocessor.apply(format(name), &file[..file.len() / 2]).is_err(), "{name}");
    }
}
