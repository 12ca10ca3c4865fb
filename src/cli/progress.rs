//! How far a long command is, for people: nothing is shown where standard error is no
//! terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often what has no end in sight shows that it goes on.
const TICK: Duration = Duration::from_millis(100);

/// So many of something.
pub(super) fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} {msg}, {eta} left");
    // The template is a constant; the default is as good if it were wrong.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what)
}

/// Something that takes as long as it takes.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what);
    spinner.enable_steady_tick(TICK);
    spinner
}
