//! Text comparison that ignores case and accents.

use unicode_normalization::{UnicodeNormalization, char::canonical_combining_class};

/// A pattern for texts. The text of the pattern is normalized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Matches only this text.
    Whole(String),
    /// Matches every text that begins with this text.
    Start(String),
    /// Matches every text that contains this text.
    Part(String),
}

impl Pattern {
    /// Applies a function to the pattern's text.
    pub(super) fn map(self, normalize: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Whole(text) => Self::Whole(normalize(&text)),
            Self::Start(text) => Self::Start(normalize(&text)),
            Self::Part(text) => Self::Part(normalize(&text)),
        }
    }

    /// Whether a text matches, regardless of case and accents.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = fold(text);
        match self {
            Self::Whole(whole) => text == *whole,
            Self::Start(start) => text.starts_with(start),
            Self::Part(part) => text.contains(part),
        }
    }

    /// The pattern in the syntax of SQL's `LIKE`.
    pub(super) fn like(&self) -> String {
        let (before, text, after) = match self {
            Self::Whole(text) => ("", text, ""),
            Self::Start(text) => ("", text, "%"),
            Self::Part(text) => ("%", text, "%"),
        };
        let text = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
        format!("{before}{text}{after}")
    }
}

/// Normalizes a text for comparisons: NFKD without accents, lower case, NFKC.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase).nfkc().collect()
}

/// Whether a character is an accent or a vowel point, by its canonical combining class in Unicode.
/// Marks that make a different letter, such as the voicing mark of kana, are not accents.
fn is_accent(c: char) -> bool {
    matches!(canonical_combining_class(c), 1 | 10..=36 | 200..=240)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_ignores_case_accents_and_width() {
        for (left, right) in [
            ("Ada", "ADA"),
            ("José", "JOSE\u{301}"),
            ("Müller", "muller"),
            ("Ångström", "angstrom"),
            ("Ｔｏｋｙｏ", "tokyo"),
            ("İstanbul", "istanbul"),
            ("Ёлка", "елка"),
            ("Ἀθήνα", "αθηνα"),
            ("ﬁn", "FIN"),
        ] {
            assert_eq!(fold(left), fold(right));
        }
        // Different letters, and marks that make a different letter.
        for (left, right) in [("か", "が"), ("a", "b"), ("क", "कि"), ("ที", "ท")] {
            assert_ne!(fold(left), fold(right));
        }
    }
}
