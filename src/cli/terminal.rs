//! Output of commands, escaped so that nothing in it can control a terminal.
//!
//! Names and values of a file, statuses of servers and proxies, and paths may hold control
//! characters. All output is printed here, where they are escaped.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write as _},
};

/// Prints a line to standard output. A reader that is gone, as after `… | head -1`, is no error.
pub(super) fn say(text: impl Display) {
    writeln!(io::stdout(), "{}", printable(text)).ok();
}

/// Prints a line to standard error. A terminal that has closed is no error.
pub(super) fn complain(text: impl Display) {
    writeln!(io::stderr(), "{}", printable(text)).ok();
}

/// Escapes a text of this program. Line ends stay.
pub(super) fn printable(text: impl Display) -> String {
    escaped(&text.to_string(), |letter| {
        letter != '\n' && is_unsafe(letter)
    })
}

/// Escapes foreign text within a line of this program. Line ends are escaped too.
pub(super) fn inline(text: impl Display) -> String {
    escaped(&text.to_string(), is_unsafe)
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unsafe(letter) {
            write!(plain, "{}", letter.escape_default()).expect("writing to a String cannot fail");
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// Whether a character changes what a terminal shows without being seen: control characters
/// (Unicode's Cc), line separators, and format characters (Cf) but for the two joiners that
/// scripts and emoji need.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let evil = "a\u{1b}[31m b\u{9b}2J c\u{202e}d\u{2066} e\u{7}\r\tf\u{2028}g\u{feff}\u{7f}";
        let plain =
            "a\\u{1b}[31m b\\u{9b}2J c\\u{202e}d\\u{2066} e\\u{7}\\r\\tf\\u{2028}g\\u{feff}\\u{7f}";
        assert_eq!(printable(evil), plain);
        assert_eq!(inline(evil), plain);
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        let text = "„Größe\" 'e\u{301}' \\ हिन्दी עברית 👩\u{200d}🚀 می\u{200c}خواهم";
        assert_eq!(printable(text), text);
        assert_eq!(inline(text), text);
    }

    #[test]
    fn only_our_own_lines_end() {
        assert_eq!(printable("one\n  two"), "one\n  two");
        assert_eq!(inline("one\nerror: two"), "one\\nerror: two");
    }
}
