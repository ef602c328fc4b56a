//! Durations as operators write them: `50ms`, `10s`, `5m`, `1h`.

use std::time::Duration;

/// Parses a whole number and its unit.
///
/// # Errors
/// A sentence that shows how to write it.
pub fn parse(text: &str) -> Result<Duration, String> {
    number_and_unit(text).ok_or_else(|| {
        format!("`{text}` is not a duration; write a whole number and ms, s, m or h, such as 50ms")
    })
}

fn number_and_unit(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(millis_each)?;
    Some(Duration::from_millis(millis))
}

/// Writes a duration as [`parse`] reads it, in its largest whole unit.
#[must_use]
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    units
        .into_iter()
        .find(|(each, _)| millis >= *each && millis.is_multiple_of(*each))
        .map_or_else(
            || format!("{millis}ms"),
            |(each, unit)| format!("{}{unit}", millis / each),
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_unit_is_read() {
        let read: Vec<_> = ["50ms", "10s", "5m", "1h", "0s"]
            .map(|text| parse(text).unwrap().as_millis())
            .into();
        assert_eq!(read, [50, 10_000, 300_000, 3_600_000, 0]);
    }

    #[test]
    fn anything_else_is_refused_and_shown_how() {
        let wrong = [
            "",
            "5",
            "ms",
            "1.5s",
            "-1s",
            "1 s",
            "1S",
            "1d",
            "1min",
            "9999999999999999h",
        ];
        for text in wrong {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
            assert!(error.contains("50ms"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..100_000_000_u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
