//! Visibility of characters: two values that look alike must not be two identifiers.

use std::{fmt, iter};

use unicode_normalization::char::canonical_combining_class;

/// The flag that tag characters make another flag of (Unicode's emoji tag sequences).
const BLACK_FLAG: char = '\u{1F3F4}';
/// The key that a variation selector draws around a digit.
const KEYCAP: char = '\u{20E3}';
/// Canonical combining class of viramas, which join letters together with a joiner.
const VIRAMA: u8 = 9;

/// A character that must not be in a value, since it is invisible there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvisibleCharacter {
    /// A control character.
    #[error("holds the control character {}", CodePoint(*.0))]
    Control(char),
    /// A character without a glyph, where no script and no emoji needs it.
    #[error("holds the invisible character {}", CodePoint(*.0))]
    Invisible(char),
}

/// A character by its number, such as `U+200B`.
struct CodePoint(char);

impl fmt::Display for CodePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X}", u32::from(self.0))
    }
}

/// Whether a value holds nothing but white space and invisible characters.
pub(super) fn is_blank(value: &str) -> bool {
    trim(value).is_empty()
}

/// The value without white space and invisible characters at both ends.
pub(super) fn trim(value: &str) -> &str {
    if value.is_ascii() {
        value.trim()
    } else {
        from_first_to_last_shown(value)
    }
}

fn from_first_to_last_shown(value: &str) -> &str {
    let mut shown = sights(value).filter(|(.., sight)| *sight == Visibility::Shown);
    let Some((start, first, _)) = shown.next() else {
        return "";
    };
    let (last_start, last, _) = shown.last().unwrap_or((start, first, Visibility::Shown));
    &value[start..last_start + last.len_utf8()]
}

/// The first invisible character of a value.
pub(super) fn first_unseen(value: &str) -> Option<InvisibleCharacter> {
    if value.is_ascii() {
        let control = value.bytes().find(u8::is_ascii_control);
        return control.map(|byte| InvisibleCharacter::Control(byte.into()));
    }
    sights(value).find_map(|(_, c, sight)| match sight {
        _ if c.is_control() => Some(InvisibleCharacter::Control(c)),
        Visibility::Hidden => Some(InvisibleCharacter::Invisible(c)),
        Visibility::Shown | Visibility::Blank => None,
    })
}

/// What a reader sees of a character at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    /// The character itself, or its effect on its neighbours.
    Shown,
    /// White space.
    Blank,
    /// Nothing.
    Hidden,
}

/// Each character with its position and what a reader sees of it.
fn sights(value: &str) -> impl Iterator<Item = (usize, char, Visibility)> {
    let mut chars = value.char_indices().peekable();
    let mut before = Before::default();
    iter::from_fn(move || {
        let (at, c) = chars.next()?;
        let look = Appearance::of(c);
        let next = chars.peek().map(|(_, next)| *next);
        let sight = match look {
            Appearance::Visible => Visibility::Shown,
            Appearance::Blank => Visibility::Blank,
            _ if before.needs(look, next) => Visibility::Shown,
            _ => Visibility::Hidden,
        };
        before.pass(c, look);
        Some((at, c, sight))
    })
}

/// The context before a character.
#[derive(Debug, Default)]
struct Before {
    /// The last visible character.
    base: Option<char>,
    /// The appearance of the last character.
    last: Option<Appearance>,
}

impl Before {
    fn pass(&mut self, c: char, look: Appearance) {
        self.last = Some(look);
        match look {
            Appearance::Visible => self.base = Some(c),
            Appearance::Blank | Appearance::Invisible => self.base = None,
            Appearance::Joiner | Appearance::Selector | Appearance::Tag => {}
        }
    }

    /// Whether a character without a glyph changes its neighbours. ASCII never needs one by itself.
    /// Where other scripts need joiners follows RFC 5892, A.1 and A.2, but less strictly: the
    /// neighbours need only be visible.
    fn needs(&self, look: Appearance, next: Option<char>) -> bool {
        let Some(base) = self.base else {
            return false;
        };
        let is_after_visible = self.last == Some(Appearance::Visible);
        match look {
            Appearance::Joiner => {
                let is_after_joined = is_after_visible || self.last == Some(Appearance::Selector);
                let joins = |next: char| {
                    Appearance::of(next) == Appearance::Visible
                        && !(base.is_ascii() && next.is_ascii())
                };
                let is_after_virama = canonical_combining_class(base) == VIRAMA;
                is_after_joined && (is_after_virama || next.is_some_and(joins))
            }
            Appearance::Selector => is_after_visible && (!base.is_ascii() || next == Some(KEYCAP)),
            Appearance::Tag => {
                base == BLACK_FLAG && (is_after_visible || self.last == Some(Appearance::Tag))
            }
            Appearance::Visible | Appearance::Blank | Appearance::Invisible => false,
        }
    }
}

/// The appearance of a character by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appearance {
    Visible,
    /// Blank space.
    Blank,
    /// Nothing, at any position.
    Invisible,
    /// Nothing, but it joins or separates its neighbours.
    Joiner,
    /// Nothing, but it selects a variant of the character before it.
    Selector,
    /// Nothing, but it spells the region of a flag.
    Tag,
}

impl Appearance {
    /// By Unicode's property `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt), and by the
    /// other characters that are drawn as nothing: interlinear annotations, and the blank of
    /// Braille.
    fn of(c: char) -> Self {
        match c {
            '\u{2800}' => Self::Blank,
            c if c.is_whitespace() => Self::Blank,
            // Combining grapheme joiner, Mongolian vowel separator, the two joiners.
            '\u{34F}' | '\u{180E}' | '\u{200C}' | '\u{200D}' => Self::Joiner,
            '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => {
                Self::Selector
            }
            '\u{E0020}'..='\u{E007F}' => Self::Tag,
            // Soft hyphen, Arabic letter mark, Hangul fillers, inherent vowels of Khmer.
            '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' => {
                Self::Invisible
            }
            '\u{17B4}' | '\u{17B5}' => Self::Invisible,
            // Zero-width space, controls of direction, word joiner, invisible operators.
            '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' => {
                Self::Invisible
            }
            // Byte-order mark, annotations, controls of shorthand and music, the rest of the plane.
            '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}' => Self::Invisible,
            '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}' => {
                Self::Invisible
            }
            _ => Self::Visible,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sequences that scripts and emoji need.
    const NEEDED: &[&str] = &[
        // Joiners: Persian (also after a Latin word), Malayalam at the end of a word, Sinhala.
        "می\u{200C}خواهم",
        "PDF\u{200C}ها",
        "അവന\u{D4D}\u{200D}",
        "ශ\u{DCA}\u{200D}රී",
        // Emoji: a family, a heart on fire, a heart as a picture, a key, a flag by tags.
        "👩\u{200D}👧",
        "❤\u{FE0F}\u{200D}🔥",
        "❤\u{FE0F}",
        "1\u{FE0F}\u{20E3}",
        "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        // A variant of an ideograph; Mongolian forms; marks kept apart.
        "葛\u{E0100}",
        "ᠠ\u{180B}ᠨ\u{180E}ᠠ",
        "e\u{34F}\u{301}",
    ];

    /// Values with an invisible character, each with that character.
    const UNSEEN: &[(&str, char)] = &[
        ("a\u{200B}b", '\u{200B}'),
        ("a\u{2060}b", '\u{2060}'),
        ("a\u{FEFF}b", '\u{FEFF}'),
        ("soft\u{AD}hyphen", '\u{AD}'),
        ("a\u{202E}b", '\u{202E}'),
        ("א\u{200F}ב", '\u{200F}'),
        ("a\u{2066}b\u{2069}", '\u{2066}'),
        ("a\u{3164}b", '\u{3164}'),
        // Joiners, selectors and tags where nothing needs them.
        ("a\u{200D}b", '\u{200D}'),
        ("a\u{200C}", '\u{200C}'),
        ("\u{200D}ب", '\u{200D}'),
        ("ب\u{200C}", '\u{200C}'),
        ("ب\u{200C}\u{200C}ب", '\u{200C}'),
        ("a\u{FE0F}b", '\u{FE0F}'),
        ("❤\u{FE0F}\u{FE0F}", '\u{FE0F}'),
        ("é\u{E0041}", '\u{E0041}'),
        ("🏴\u{200B}\u{E0067}", '\u{200B}'),
    ];

    #[test]
    fn what_scripts_and_emoji_need_is_seen() {
        for value in NEEDED {
            assert_eq!(first_unseen(value), None, "{}", value.escape_unicode());
            assert_eq!(trim(&format!("\u{200B} {value} \u{FEFF}")), *value);
        }
    }

    #[test]
    fn what_nobody_can_see_is_named_by_its_code_point() {
        for (value, named) in UNSEEN {
            let found = first_unseen(value);
            let shown = value.escape_unicode();
            assert_eq!(
                found,
                Some(InvisibleCharacter::Invisible(*named)),
                "{shown}"
            );
        }
        let text = |value| first_unseen(value).unwrap().to_string();
        assert_eq!(text("a\u{200B}b"), "holds the invisible character U+200B");
        assert_eq!(text("a\u{0}b"), "holds the control character U+0000");
        assert_eq!(text("é\u{85}"), "holds the control character U+0085");
        assert_eq!(text("é\u{E0001}"), "holds the invisible character U+E0001");
    }

    #[test]
    fn ends_are_stripped_in_any_order() {
        let ends = "\u{200B} \u{FEFF}\t\u{2060}\u{AD}\u{A0}\u{202E}\u{200D}\u{FE0F}";
        for value in ["ada", "a b", "é", "grace hopper ❤\u{FE0F}"] {
            assert_eq!(trim(&format!("{ends}{value}")), value);
        }
        assert_eq!(trim(&format!("ada{ends}")), "ada");
        assert!(is_blank(ends) && is_blank("") && is_blank("\u{3164}\u{2800}"));
        assert!(!is_blank("\u{0}") && !is_blank("a"));
    }

    /// Characters of every appearance, and whole sequences.
    fn value() -> impl Strategy<Value = String> {
        let parts = prop_oneof![
            "[ab1 \t\u{0}]",
            "[éب\u{D4D}\u{301}\u{1F3F4}❤\u{20E3}\u{A0}]",
            "[\u{200B}\u{FEFF}\u{AD}\u{202E}\u{3164}\u{2800}]",
            "[\u{200C}\u{200D}\u{FE0F}\u{180E}\u{E0067}\u{E007F}]",
            prop::sample::select(NEEDED).prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn trimming_twice_is_trimming_once(value in value()) {
            let once = trim(&value);
            prop_assert_eq!(trim(once), once);
        }

        #[test]
        fn trimming_removes_only_what_is_blank_or_unseen(value in value()) {
            let (before, after) = value.split_once(trim(&value)).unwrap();
            prop_assert!(is_blank(before) && is_blank(after));
        }

        #[test]
        fn what_is_trimmed_begins_and_ends_with_what_is_seen(value in value()) {
            let trimmed = trim(&value);
            prop_assert_eq!(trimmed.trim(), trimmed);
            let is_seen = |at: Option<(usize, char, Visibility)>| {
                at.is_none_or(|(.., sight)| sight == Visibility::Shown)
            };
            prop_assert!(is_seen(sights(trimmed).next()) && is_seen(sights(trimmed).last()));
        }

        #[test]
        fn ascii_is_looked_at_as_any_other_text(value in "[ -~\t\n\u{0}\u{7f}\u{1c}]{0,8}") {
            prop_assert_eq!(trim(&value), from_first_to_last_shown(&value));
            prop_assert_eq!(first_unseen(&value), first_unseen(&format!("é{value}")));
        }
    }
}
