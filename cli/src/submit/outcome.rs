//! The outcome of one file.

use std::path::PathBuf;
use std::time::Duration;

use client::{NoResult, Payload};
use queue::JobId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::table::shortened;

/// The longest text of a result in a table, in characters.
const RESULT_WIDTH: usize = 60;

/// The outcome of one file.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) path: PathBuf,
    pub(super) id: JobId,
    pub(super) elapsed: Duration,
    pub(super) truth: Option<String>,
    pub(super) result: Result<Payload, NoResult>,
}

/// A label and its probability according to the model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Prediction {
    pub(super) label: String,
    pub(super) probability: f64,
}

#[derive(Deserialize)]
struct Predictions {
    predictions: Vec<Prediction>,
}

impl Outcome {
    /// The state of the job. If the state is unknown, the reason in one word.
    pub(super) fn state(&self) -> &str {
        self.result.as_ref().map_or_else(|error| error.state.as_str(), |_| "succeeded")
    }

    /// The most probable prediction, if the result has predictions.
    pub(super) fn prediction(&self) -> Option<Prediction> {
        self.result.as_ref().ok().and_then(prediction)
    }

    /// Whether the prediction is right; `None` if the prediction or the true label is missing.
    pub(super) fn is_right(&self) -> Option<bool> {
        Some(self.prediction()?.label == *self.truth.as_ref()?)
    }

    /// The result as a short text.
    pub(super) fn summary(&self) -> String {
        match &self.result {
            Ok(output) => summary(output),
            Err(error) => error.reason.clone(),
        }
    }

    /// The whole outcome, for a program.
    pub(super) fn to_json(&self) -> Value {
        let mut line = json!({
            "file": self.path.to_string_lossy(),
            "id": self.id,
            "state": self.state(),
            "seconds": self.elapsed.as_secs_f64(),
        });
        match &self.result {
            Ok(output) => {
                line["media_type"] = json!(output.media_type);
                line["result"] = value(output);
            }
            Err(error) => line["error"] = json!(error.reason),
        }
        if let Some(truth) = &self.truth {
            line["truth"] = json!(truth);
        }
        line
    }
}

fn prediction(output: &Payload) -> Option<Prediction> {
    let Predictions { predictions } = serde_json::from_slice(&output.bytes).ok()?;
    predictions.into_iter().max_by(|a, b| a.probability.total_cmp(&b.probability))
}

/// JSON unchanged, text as a string, and other bytes as the number of bytes.
fn value(output: &Payload) -> Value {
    if let Ok(value) = serde_json::from_slice(&output.bytes) {
        return value;
    }
    match std::str::from_utf8(&output.bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "bytes": output.bytes.len() }),
    }
}

fn summary(output: &Payload) -> String {
    if let Some(Prediction { label, probability }) = prediction(output) {
        return format!("{label} ({:.1} %)", probability * 100.0);
    }
    match std::str::from_utf8(&output.bytes) {
        Ok(text) => shortened(text, RESULT_WIDTH),
        Err(_) => format!("{}, {} bytes", output.media_type, output.bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(media_type: &str, body: &[u8]) -> String {
        summary(&Payload { media_type: media_type.to_owned(), bytes: body.to_vec().into() })
    }

    #[test]
    fn the_most_probable_prediction_is_shown() {
        let body = br#"{"predictions":[{"label":"1","probability":0.25},{"label":"7","probability":0.75}]}"#;
        assert_eq!(summary_of("application/json", body), "7 (75.0 %)");
    }

    #[test]
    fn other_results_are_shown_in_short() {
        assert_eq!(summary_of("text/plain", b"two\nlines"), "two lines");
        let long = "x".repeat(100);
        assert_eq!(summary_of("text/plain", long.as_bytes()), format!("{}...", "x".repeat(RESULT_WIDTH)));
        assert_eq!(summary_of("image/png", b"\x89PNG\xff"), "image/png, 5 bytes");
        assert_eq!(summary_of("application/json", br#"{"predictions":[]}"#), r#"{"predictions":[]}"#);
    }
}
