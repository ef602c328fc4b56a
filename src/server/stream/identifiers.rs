//! Record identifiers: the names and values of one record, where they stand in its message.

use std::collections::HashMap;

use crate::domain::Identifiers;

/// Up to so many are looked through one by one; of more, a map is made, so that a record with very many
/// does not cost their product with the names that are looked for.
const FEW: usize = 16;

/// The identifiers of one record.
pub(super) enum RecordIdentifiers<'a> {
    Few(&'a [(&'a str, &'a str)]),
    Many(HashMap<&'a str, &'a str>),
}

impl<'a> RecordIdentifiers<'a> {
    /// Of equal names, the last one counts.
    pub(super) fn new(identifiers: &'a [(&'a str, &'a str)]) -> Self {
        if identifiers.len() <= FEW {
            Self::Few(identifiers)
        } else {
            Self::Many(identifiers.iter().copied().collect())
        }
    }
}

impl Identifiers for RecordIdentifiers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Few(list) => {
                let found = list.iter().rev().find(|(each, _)| *each == name);
                found.map(|(_, value)| *value)
            }
            Self::Many(map) => map.get(name).copied(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let (few, many) = match self {
            Self::Few(list) => (*list, None),
            Self::Many(map) => (&[][..], Some(map)),
        };
        let few = few.iter().map(|(name, _)| *name);
        few.chain(many.into_iter().flat_map(HashMap::keys).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_names_the_last_one_counts_however_many_there_are() {
        for names in [2, FEW, FEW + 1, 100] {
            let many: Vec<_> = (0..names).map(|number| number.to_string()).collect();
            let mut list: Vec<_> = many.iter().map(|name| (name.as_str(), "first")).collect();
            list[names - 1] = ("0", "last");
            let identifiers = RecordIdentifiers::new(&list);
            assert_eq!(identifiers.get("0"), Some("last"));
            assert_eq!(identifiers.get("none"), None);
            let mut found: Vec<_> = identifiers.names().collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), names - 1);
        }
    }
}
