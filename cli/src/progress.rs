//! A progress bar.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` things, such as `jobs`. It is on standard error, and hidden if that is not a terminal.
pub(crate) fn bar(total: usize, things: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    let template = format!("{{elapsed_precise}} {{bar:40}} {{pos}}/{{len}} {things}, {{per_sec}} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
