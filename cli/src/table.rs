//! Tables on a terminal.

use comfy_table::{Table, presets};

use crate::output::is_unsafe;

/// An empty table in the style of this program.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// At most `characters` characters of a text, on one line. Control characters are replaced: they could change the state
/// of the terminal.
pub(crate) fn shortened(text: &str, characters: usize) -> String {
    let mut plain = text.trim().chars().map(|c| if is_unsafe(c) { ' ' } else { c });
    let shown: String = plain.by_ref().take(characters).collect();
    if plain.next().is_none() { shown } else { format!("{shown}...") }
}
