//! The most probable classes, from the logits that a model returned.

use std::cmp::Ordering;

use bytes::Bytes;
use model::{Datatype, HostTensor, TopK};
use serde::Serialize;

use super::error::ModelError;

/// The output of a pool with top-k.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predictions {
    /// The most probable classes, the most probable first.
    pub predictions: Vec<Prediction>,
}

/// One class and how probable it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The name of the class, or its number where the model has no names.
    pub label: String,
    /// From 0 to 1; the sum over all classes is 1.
    pub probability: f64,
}

/// The softmax of `logits`, one value per class, and its `k` largest. Of equal values, the lower class comes first.
///
/// An error if the logits are not one FP32 or FP64 value per class, or if one is not a number.
pub fn top_k(step: &TopK, logits: &HostTensor) -> Result<Predictions, ModelError> {
    let logits = values(logits)?;
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if logits.iter().any(|logit| logit.is_nan()) || !largest.is_finite() {
        return Err(ModelError::model("the model returned logits that are not numbers"));
    }
    // Subtracting the largest keeps exp() in range and does not change the result.
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    let by_weight = |a: &usize, b: &usize| match weights[*b].total_cmp(&weights[*a]) {
        Ordering::Equal => a.cmp(b),
        unequal => unequal,
    };
    let k = step.k.min(order.len());
    if k < order.len() {
        order.select_nth_unstable_by(k, by_weight);
        order.truncate(k);
    }
    order.sort_unstable_by(by_weight);
    let label = |class: usize| step.labels.get(class).cloned().unwrap_or_else(|| class.to_string());
    let predictions =
        order.into_iter().map(|class| Prediction { label: label(class), probability: weights[class] / total });
    Ok(Predictions { predictions: predictions.collect() })
}

impl Predictions {
    /// As JSON.
    pub fn to_json(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }
}

fn values(logits: &HostTensor) -> Result<Vec<f64>, ModelError> {
    let values: Vec<f64> = match logits.datatype {
        Datatype::Fp32 => logits.data.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        Datatype::Fp64 => logits.data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        other => return Err(ModelError::model(format!("the model returned {other} where top_k needs FP32 or FP64"))),
    };
    match logits.shape[..] {
        [classes] if classes as usize == values.len() && classes > 0 => Ok(values),
        _ => {
            let shape = &logits.shape;
            Err(ModelError::model(format!("the model returned the shape {shape:?} where top_k needs one dimension")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(k: usize, labels: &[&str]) -> TopK {
        TopK { k, labels: labels.iter().map(|label| (*label).to_owned()).collect(), labels_file: None }
    }

    fn logits(values: &[f32]) -> HostTensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        HostTensor { name: "logits".to_owned(), datatype: Datatype::Fp32, shape: vec![values.len() as i64], data }
    }

    #[test]
    fn the_most_probable_classes_come_first_with_their_softmax() {
        // e⁰, e¹, e², e³ over their sum.
        let given = top_k(&step(2, &["a", "b", "c", "d"]), &logits(&[1.0, 3.0, 0.0, 2.0])).unwrap();
        let labels: Vec<&str> = given.predictions.iter().map(|prediction| prediction.label.as_str()).collect();
        assert_eq!(labels, ["b", "d"]);
        assert!((given.predictions[0].probability - 0.643_914_26).abs() < 1e-6);
        assert!((given.predictions[1].probability - 0.236_882_82).abs() < 1e-6);
    }

    #[test]
    fn a_class_without_a_label_is_given_by_its_number_and_equal_classes_stay_in_order() {
        let given = top_k(&step(9, &[]), &logits(&[500.0, 500.0, 500.0])).unwrap();
        let labels: Vec<&str> = given.predictions.iter().map(|prediction| prediction.label.as_str()).collect();
        assert_eq!(labels, ["0", "1", "2"]);
        let total: f64 = given.predictions.iter().map(|prediction| prediction.probability).sum();
        assert!((total - 1.0).abs() < 1e-9);
    }

    #[test]
    fn logits_that_are_not_numbers_are_an_error() {
        for values in [&[f32::NAN, 1.0][..], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY], &[]] {
            assert!(top_k(&step(1, &[]), &logits(values)).is_err(), "{values:?}");
        }
        let square = HostTensor { shape: vec![2, 2], ..logits(&[1.0, 2.0, 3.0, 4.0]) };
        assert!(top_k(&step(1, &[]), &square).unwrap_err().to_string().contains("[2, 2]"));
    }

    #[test]
    fn predictions_are_written_as_json() {
        let given = top_k(&step(1, &["only"]), &logits(&[0.0])).unwrap();
        assert_eq!(given.to_json().unwrap(), r#"{"predictions":[{"label":"only","probability":1.0}]}"#);
    }
}
