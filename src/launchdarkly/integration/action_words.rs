//! The words by which a request says whether its members enter or leave.
//!
//! A manifest has one regular expression. A word that it matches adds; any other word that is not
//! empty removes. So a wrong word would turn an addition into a removal without an error: both are
//! tried against the expression before any is used.

use regex_syntax::hir::literal::Extractor;

use crate::domain::Operation;

/// Words that mean an addition, for expressions that do not list their own.
const USUAL_ADDITIONS: [&str; 5] = ["add_members", "add", "members", "included", "true"];
/// Words that mean a removal.
const USUAL_REMOVALS: [&str; 5] = ["remove_members", "remove", "delete", "excluded", "false"];

/// The words of one integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ActionWords {
    add: String,
    remove: String,
}

/// Why an expression gives no pair of words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ActionWordsError {
    #[error("is no regular expression that can be read here: {0}")]
    Expression(String),
    #[error("matches no word that was found for it, so nothing could be added")]
    NoAddition,
    #[error("matches every word that could stand for a removal, so nothing could be removed")]
    NoRemoval,
}

impl ActionWords {
    /// Chooses the words: of an alternation one of its literals, for an addition if possible one
    /// that says "add", and for a removal its counterpart.
    pub(super) fn choose(matcher: &str) -> Result<Self, ActionWordsError> {
        let unreadable = |error: String| ActionWordsError::Expression(last_line(&error));
        let expression =
            regex::Regex::new(matcher).map_err(|error| unreadable(error.to_string()))?;
        let mut literals = literals(matcher).map_err(unreadable)?;
        literals.sort_by_key(|word| !word.contains("add"));

        let usual = USUAL_ADDITIONS.map(str::to_owned);
        let add = literals
            .into_iter()
            .chain(usual)
            .find(|word| !word.is_empty() && expression.is_match(word))
            .ok_or(ActionWordsError::NoAddition)?;
        let counterpart = add.replace("add", "remove");
        let remove = std::iter::once(counterpart)
            .chain(USUAL_REMOVALS.map(str::to_owned))
            .find(|word| !expression.is_match(word))
            .ok_or(ActionWordsError::NoRemoval)?;
        Ok(Self { add, remove })
    }

    pub(super) fn word(&self, operation: Operation) -> &str {
        match operation {
            Operation::Add => &self.add,
            Operation::Remove => &self.remove,
        }
    }
}

/// The words that an expression lists, or begins with.
fn literals(matcher: &str) -> Result<Vec<String>, String> {
    let parsed = regex_syntax::parse(matcher).map_err(|error| error.to_string())?;
    let found = Extractor::new().extract(&parsed);
    let words = found.literals().unwrap_or_default().iter();
    let words = words.filter_map(|word| str::from_utf8(word.as_bytes()).ok());
    Ok(words.map(str::to_owned).collect())
}

/// Errors of the library show the expression with marks under it, on lines of their own.
fn last_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(matcher: &str) -> (String, String) {
        let words = ActionWords::choose(matcher).unwrap();
        (words.add, words.remove)
    }

    #[test]
    fn the_words_of_the_registered_manifests() {
        for (matcher, add, remove) in [
            ("^(members|add_members)$", "add_members", "remove_members"),
            ("^add$", "add", "remove"),
            // It takes both of its own words for additions.
            (
                "^(add_member|remove_member)$",
                "add_member",
                "remove_members",
            ),
        ] {
            assert_eq!(words(matcher), (add.into(), remove.into()), "{matcher}");
        }
    }

    #[test]
    fn words_are_found_for_expressions_that_list_none() {
        for matcher in [
            "^[a-z]{3}$",
            "(?i)^ADD$",
            "^in",
            "mem",
            "^(enter|join)$",
            "^a{2,}$",
        ] {
            let (add, remove) = words(matcher);
            let expression = regex::Regex::new(matcher).unwrap();
            assert!(expression.is_match(&add), "{matcher}: {add}");
            assert!(!expression.is_match(&remove), "{matcher}: {remove}");
        }
    }

    #[test]
    fn an_expression_without_a_pair_of_words_is_refused() {
        use ActionWordsError::*;
        for matcher in [".*", "", "^(?:add)?", "e"] {
            assert_eq!(ActionWords::choose(matcher), Err(NoRemoval), "{matcher}");
        }
        for matcher in ["^$", "^[0-9]{40}$", r"[^\s\S]"] {
            assert_eq!(ActionWords::choose(matcher), Err(NoAddition), "{matcher}");
        }
        for matcher in ["(", "^(?!remove)"] {
            let refused = ActionWords::choose(matcher);
            assert!(
                matches!(refused, Err(Expression(_))),
                "{matcher}: {refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_addition_matches_and_a_removal_does_not(
            matcher in r"\^?\(?(add|remove|members|in|out|[a-z]{0,3}|\[a-c\]\{2\}|\.)(\|[a-z_]{0,6}){0,3}\)?\$?"
        ) {
            if let Ok(words) = ActionWords::choose(&matcher) {
                let expression = regex::Regex::new(&matcher).unwrap();
                prop_assert!(!words.add.is_empty() && expression.is_match(&words.add));
                prop_assert!(!words.remove.is_empty() && !expression.is_match(&words.remove));
            }
        }
    }
}
