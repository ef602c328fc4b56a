//! Null values, and values that a spreadsheet may have shortened.

use super::{InputOptions, findings::Findings};

/// Null values as databases, spreadsheets and programs write them.
pub(crate) const NULLS: &[&str] = &[
    "\\N",
    "NULL",
    "(null)",
    "nil",
    "None",
    "undefined",
    "NaN",
    "NA",
    "N/A",
    "#N/A",
];

/// Finds null values, and counts those that look shortened.
#[derive(Debug)]
pub(super) struct Values {
    nulls: Vec<String>,
}

impl Values {
    pub(super) fn new(options: &InputOptions) -> Self {
        Self {
            nulls: options.nulls.clone(),
        }
    }

    /// The value, if it is not a null value.
    pub(super) fn present(
        &self,
        value: String,
        line: u64,
        findings: &mut Findings,
    ) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let bare = value.trim();
        if self
            .nulls
            .iter()
            .any(|null| null.trim().eq_ignore_ascii_case(bare))
        {
            findings.absent.note(line);
            return None;
        }
        if is_shortened(bare) {
            findings.shortened.note(line);
        }
        Some(value)
    }
}

/// Whether a spreadsheet may have written it for a number with more digits: `1.23457E+11`, `123.0`.
fn is_shortened(value: &str) -> bool {
    let (mantissa, exponent) = match value.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (value, None),
    };
    let (whole, fraction) = match mantissa.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    match exponent.map(|exponent| exponent.strip_prefix(['+', '-'])) {
        // Without a sign it may be an identifier in hexadecimal digits.
        Some(exponent) => {
            is_digits(whole) && fraction.is_none_or(is_digits) && exponent.is_some_and(is_digits)
        }
        None => is_digits(whole) && fraction.is_some_and(is_zeros),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_zeros(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::is_shortened;

    #[test]
    fn numbers_as_spreadsheets_shorten_them_are_known() {
        for shortened in [
            "1.23457E+11",
            "1,23457E+11",
            "1e+20",
            "5E-7",
            "-1.5e+3",
            "123.0",
            "123,00",
        ] {
            assert!(is_shortened(shortened), "{shortened}");
        }
        for whole in [
            "123", "1e5", "12E34", "1.5", "a.0", "E+1", "1E+", "", ".0", "10.0.0", "1.0E+x",
        ] {
            assert!(!is_shortened(whole), "{whole}");
        }
    }
}
