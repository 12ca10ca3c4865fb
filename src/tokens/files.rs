//! PEM files with several keys, oldest first. A line before a key contains the key's start time:
//!
//! ```text
//! signs from 2026-11-24T10:00:00Z
//! -----BEGIN PRIVATE KEY-----
//! ```
//!
//! Text around PEM blocks is allowed (RFC 7468, section 5.2), so other tools can read the files
//! too. A key without such a line has no start time: it can sign at any time.

use std::path::Path;

use anyhow::{Context, ensure};
use pem::Pem;
use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const START_PREFIX: &str = "signs from ";

/// One key in a file.
pub(super) struct KeyBlock {
    /// Time from which the key signs; `None` for a key without a start time.
    pub start_time: Option<OffsetDateTime>,
    pem: Pem,
}

impl KeyBlock {
    pub fn new(start_time: Option<OffsetDateTime>, pem: Pem) -> Self {
        Self { start_time, pem }
    }

    /// The key in PEM, without the line of its start time.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode(&self.pem))
    }

    /// Appends the key to the text of a file.
    fn render(&self, text: &mut String) -> anyhow::Result<()> {
        if let Some(start_time) = self.start_time {
            text.push_str(START_PREFIX);
            text.push_str(&start_time.format(&Rfc3339).context("a time can't be written")?);
            text.push('\n');
        }
        text.push_str(&self.text());
        Ok(())
    }
}

/// Reads the keys of a file.
///
/// # Errors
/// When the file can't be read or parsed, or has no key. No error contains content of the file.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<KeyBlock>> {
    let text = std::fs::read_to_string(path)
        .map(SecretString::from)
        .with_context(|| format!("can't read {}", path.display()))?;
    parse(text.expose_secret()).with_context(|| format!("{} can't be used", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<KeyBlock>> {
    let keys = pem::parse_many(text).ok().context("the file is not PEM")?;
    // Each piece ends with the text before the key of the same index. `zip` leaves out the piece
    // after the last `BEGIN`.
    let preceding_texts: Vec<_> = text.split(BEGIN).collect();
    ensure!(!keys.is_empty(), "the file has no key in PEM");
    ensure!(preceding_texts.len() == keys.len() + 1, "a key in the file is incomplete");
    let blocks = keys.into_iter().zip(preceding_texts).map(|(pem, preceding_text)| {
        let line =
            preceding_text.lines().rev().find_map(|line| line.trim().strip_prefix(START_PREFIX));
        let start_time = line.map(|time| OffsetDateTime::parse(time.trim(), &Rfc3339)).transpose();
        Ok(KeyBlock {
            start_time: start_time.ok().context("a time in the file is not RFC 3339")?,
            pem,
        })
    });
    blocks.collect()
}

/// Renders the text of a file with these keys.
pub(super) fn render(blocks: &[KeyBlock]) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    for block in blocks {
        block.render(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_of_each_key_is_written_and_read() {
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("the time is valid");
        let blocks = [
            KeyBlock::new(None, Pem::new("A", [1])),
            KeyBlock::new(Some(start), Pem::new("B", [2])),
        ];
        let parsed =
            parse(&render(&blocks).expect("the keys are rendered")).expect("the text is parsed");
        assert_eq!(
            parsed.iter().map(|block| block.start_time).collect::<Vec<_>>(),
            [None, Some(start)]
        );
        assert_eq!(*parsed[1].text(), *blocks[1].text());
    }

    #[test]
    fn incomplete_and_invalid_files_are_refused() {
        let complete_text = pem::encode(&Pem::new("A", [1; 40]));
        let half_of_text = &complete_text[..complete_text.len() / 2];
        for text in [
            "",
            "text",
            half_of_text,
            &format!("{complete_text}{half_of_text}"),
            &format!("{START_PREFIX}noon\n{complete_text}"),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
