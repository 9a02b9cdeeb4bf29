use ::image::Rgb;
use ::image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use model::{IMAGE_MEDIA_TYPES, ImageStep};

use super::super::{ImagePreprocessor, format_of};
use super::*;

fn pixel(x: u32, y: u32) -> [u8; 3] {
    [((x * 37) ^ (y * 11)) as u8, (x * y * 5) as u8, (x * 3 + y * 29) as u8]
}

fn image() -> RgbImage {
    RgbImage::from_fn(40, 36, |x, y| Rgb(pixel(x, y)))
}

fn is_accepted(format: ImageFormat, file: &[u8]) -> bool {
    let step =
        ImageStep { width: 8, height: 8, channels: 3, resize: None, scale: 1.0, mean: Vec::new(), std: Vec::new() };
    ImagePreprocessor::new(step, "image").apply(format, file).is_ok()
}

fn jpegs() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_2] {
        for (is_progressive, restart) in [(false, 0), (false, 4), (true, 0)] {
            let mut file = Vec::new();
            let mut encoder = Encoder::new(&mut file, 90);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(is_progressive);
            if restart > 0 {
                encoder.set_restart_interval(restart);
            }
            encoder.encode(image().as_raw(), 40, 36, ColorType::Rgb).unwrap();
            files.push(file);
        }
    }
    files
}

#[test]
fn a_jpeg_that_lacks_data_is_refused_and_one_that_lacks_its_last_marker_is_not() {
    let mut all = Vec::new();
    for (number, file) in jpegs().into_iter().enumerate() {
        assert!(is_accepted(ImageFormat::Jpeg, &file), "file {number}");
        let data = &file[..file.len() - 2];
        assert!(is_accepted(ImageFormat::Jpeg, data), "file {number} without its last marker");
        // The last bytes may have no bit that changes the image.
        let accepted: Vec<usize> =
            (2..data.len() - 4).filter(|length| is_accepted(ImageFormat::Jpeg, &data[..*length])).collect();
        all.push((number, file.len(), accepted));
    }
    assert!(all.iter().all(|(_, _, accepted)| accepted.is_empty()), "left (file, bytes, accepted lengths): {all:?}");
}

#[test]
fn a_file_of_any_format_that_is_cut_off_is_refused() {
    for media_type in IMAGE_MEDIA_TYPES {
        let format = format_of(media_type).unwrap();
        let mut file = Cursor::new(Vec::new());
        DynamicImage::from(image()).write_to(&mut file, format).unwrap();
        let file = file.into_inner();
        assert!(is_accepted(format, &file), "{media_type}");
        for percent in [10, 50, 90] {
            assert!(!is_accepted(format, &file[..file.len() * percent / 100]), "{media_type} at {percent} %");
        }
    }
}
