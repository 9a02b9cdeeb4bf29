//! The step from the input of a job to the input tensors of a model.

use serde::Deserialize;

use super::fault::Faults;
use crate::datatype::Datatype;
use crate::tensor::TensorSpec;

/// The step from an input to tensors. Every pool accepts JSON tensors; a pool with an image step also accepts images.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// Inputs are JSON tensors.
    #[default]
    None,
    /// Inputs are images: PNG, JPEG, WebP, GIF (its first picture) or BMP.
    Image(ImageStep),
}

/// Converts an image file to one FP32 tensor of shape `[channels, height, width]`, as torchvision does it. The image is
/// turned upright and becomes gray or RGB. Its shorter side is resized (bilinear with antialiasing) and its centre is
/// cropped. Each value is then `(value × scale − mean) / std`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageStep {
    /// The width of the crop.
    pub width: u32,
    /// The height of the crop.
    pub height: u32,
    /// 1 for gray, 3 for RGB.
    pub channels: usize,
    /// The size of the shorter side before the crop. Unless given, the smallest size that covers the crop.
    pub resize: Option<u32>,
    /// The factor for values from 0 to 255; 1/255 unless given.
    #[serde(default = "one_255th")]
    pub scale: f32,
    /// The numbers to subtract, one per channel; 0 unless given.
    #[serde(default)]
    pub mean: Vec<f32>,
    /// The numbers to divide by, one per channel; 1 unless given.
    #[serde(default)]
    pub std: Vec<f32>,
}

fn one_255th() -> f32 {
    1.0 / 255.0
}

impl Preprocess {
    pub(super) fn check(&self, inputs: &[TensorSpec], faults: &mut Faults) {
        match self {
            Self::None => {}
            Self::Image(step) => step.check(inputs, faults),
        }
    }
}

impl ImageStep {
    fn check(&self, inputs: &[TensorSpec], faults: &mut Faults) {
        let sides = 1..=8192;
        faults.unless(sides.contains(&self.width), "preprocess.image.width", self.width, "from 1 to 8192");
        faults.unless(sides.contains(&self.height), "preprocess.image.height", self.height, "from 1 to 8192");
        faults.unless(
            matches!(self.channels, 1 | 3),
            "preprocess.image.channels",
            self.channels,
            "1 (gray) or 3 (RGB)",
        );
        if let Some(resize) = self.resize {
            let covers = (self.width.max(self.height)..=8192).contains(&resize);
            let rule = "from the longer of width and height to 8192";
            faults.unless(covers, "preprocess.image.resize", resize, rule);
        }
        let usable = self.scale.is_finite() && self.scale > 0.0;
        faults.unless(usable, "preprocess.image.scale", self.scale, "above 0");
        let one_each = |values: &[f32]| values.is_empty() || values.len() == self.channels;
        let rule = "one finite number per channel";
        let usable = one_each(&self.mean) && self.mean.iter().all(|mean| mean.is_finite());
        faults.unless(usable, "preprocess.image.mean", format_args!("{:?}", self.mean), rule);
        let rule = "one number above 0 per channel";
        let usable = one_each(&self.std) && self.std.iter().all(|std| std.is_finite() && *std > 0.0);
        faults.unless(usable, "preprocess.image.std", format_args!("{:?}", self.std), rule);
        self.check_input(inputs, faults);
    }

    /// The tensor of an image must be the only input of the model.
    fn check_input(&self, inputs: &[TensorSpec], faults: &mut Faults) {
        let [input] = inputs else {
            // If there is no readable input, that fault is recorded elsewhere.
            faults.unless(
                inputs.len() < 2,
                "inputs",
                format_args!("{} tensors", inputs.len()),
                "one, as an image gives",
            );
            return;
        };
        let image = self.shape();
        faults.unless(
            input.datatype == Datatype::Fp32,
            "inputs[0].datatype",
            input.datatype,
            "FP32, as an image gives",
        );
        let rule = format!("{image:?}, as preprocess.image gives");
        faults.unless(input.takes_shape(&image), "inputs[0].shape", format_args!("{:?}", input.shape), &rule);
    }

    /// The shape of the tensor: channels, height, width.
    pub fn shape(&self) -> [i64; 3] {
        [self.channels as i64, i64::from(self.height), i64::from(self.width)]
    }
}
