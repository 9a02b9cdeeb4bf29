//! What became of a file.

use std::path::PathBuf;
use std::time::Duration;

use queue::JobId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::table::shortened;

/// The longest text of a result in a table, in characters.
const SHOWN: usize = 60;

/// What became of a file.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) path: PathBuf,
    pub(super) id: JobId,
    pub(super) elapsed: Duration,
    pub(super) truth: Option<String>,
    pub(super) end: Result<Answer, Failure>,
}

/// What the model gave.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) media_type: String,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The job's state, or `refused`, `timeout`, `unreadable` where it has none that is known.
    pub(super) state: String,
    pub(super) reason: String,
}

/// A class and how sure the model is of it.
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
    /// The state in a word.
    pub(super) fn state(&self) -> &str {
        self.end.as_ref().map_or_else(|failure| failure.state.as_str(), |_| "succeeded")
    }

    /// The likeliest prediction, if the model gave predictions.
    pub(super) fn prediction(&self) -> Option<Prediction> {
        self.end.as_ref().ok().and_then(Answer::prediction)
    }

    /// Whether the prediction is the truth; `None` where either is missing.
    pub(super) fn is_right(&self) -> Option<bool> {
        Some(self.prediction()?.label == *self.truth.as_ref()?)
    }

    /// The result in a few words.
    pub(super) fn summary(&self) -> String {
        match &self.end {
            Ok(answer) => answer.summary(),
            Err(failure) => failure.reason.clone(),
        }
    }

    /// Everything, for a program.
    pub(super) fn to_json(&self) -> Value {
        let mut line = json!({
            "file": self.path.to_string_lossy(),
            "id": self.id,
            "state": self.state(),
            "seconds": self.elapsed.as_secs_f64(),
        });
        match &self.end {
            Ok(answer) => {
                line["media_type"] = json!(answer.media_type);
                line["result"] = answer.value();
            }
            Err(failure) => line["error"] = json!(failure.reason),
        }
        if let Some(truth) = &self.truth {
            line["truth"] = json!(truth);
        }
        line
    }
}

impl Answer {
    fn prediction(&self) -> Option<Prediction> {
        let Predictions { predictions } = serde_json::from_slice(&self.body).ok()?;
        predictions.into_iter().max_by(|a, b| a.probability.total_cmp(&b.probability))
    }

    /// JSON as it is, text as a string, bytes as their number.
    fn value(&self) -> Value {
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return value;
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => json!(text),
            Err(_) => json!({ "bytes": self.body.len() }),
        }
    }

    fn summary(&self) -> String {
        if let Some(Prediction { label, probability }) = self.prediction() {
            return format!("{label} ({:.1} %)", probability * 100.0);
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => shortened(text, SHOWN),
            Err(_) => format!("{}, {} bytes", self.media_type, self.body.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(media_type: &str, body: &[u8]) -> Answer {
        Answer { media_type: media_type.to_owned(), body: body.to_vec() }
    }

    #[test]
    fn the_likeliest_prediction_is_shown() {
        let body = br#"{"predictions":[{"label":"1","probability":0.25},{"label":"7","probability":0.75}]}"#;
        assert_eq!(answer("application/json", body).summary(), "7 (75.0 %)");
    }

    #[test]
    fn other_results_are_shown_in_short() {
        assert_eq!(answer("text/plain", b"two\nlines").summary(), "two lines");
        assert_eq!(answer("text/plain", "x".repeat(100).as_bytes()).summary(), format!("{}...", "x".repeat(SHOWN)));
        assert_eq!(answer("image/png", b"\x89PNG\xff").summary(), "image/png, 5 bytes");
        assert_eq!(answer("application/json", br#"{"predictions":[]}"#).summary(), r#"{"predictions":[]}"#);
    }
}
