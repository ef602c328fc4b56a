//! Transforms of identifier values: the table of all, and the function of each.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::{KeyError, visibility};

macro_rules! transforms {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal, $contract_name:literal;)+) => {
        /// Changes a value before it is sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Transform {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl Transform {
            /// All transforms.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in a command.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Its name in the contract.
            #[must_use]
            pub const fn contract_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $contract_name,)+
                }
            }

            #[cfg(test)]
            fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning),+).trim(),)+
                }
            }
        }
    };
}

transforms! {
    /// Removes white space and invisible characters at both ends, in any order.
    Trim = "trim", "TRANSFORM_TRIM";
    /// Unicode lower case.
    Lowercase = "lowercase", "TRANSFORM_LOWERCASE";
    /// SHA-256 of the UTF-8 bytes, as 64 lower-case hex digits.
    Sha256Hex = "sha256", "TRANSFORM_SHA256_HEX";
    /// Unicode composition (NFC): `é` as one character and as two become the same.
    Nfc = "nfc", "TRANSFORM_NFC";
}

impl Transform {
    /// The names of all transforms, by a function for one, as a list for people.
    #[must_use]
    pub fn listed(name: impl Fn(Self) -> &'static str) -> String {
        let names: Vec<_> = Self::ALL.iter().map(|each| name(*each)).collect();
        names.join(", ")
    }

    /// The transformed value. An invalid value is not hashed, since a hash would hide the fault.
    pub(super) fn apply(self, value: Cow<'_, str>) -> Result<Cow<'_, str>, KeyError> {
        Ok(match self {
            Self::Trim => trimmed(value),
            Self::Lowercase => value.to_lowercase().into(),
            Self::Sha256Hex => {
                // A hash does not show the invisible character of its input.
                KeyError::unless_seen(&value)?;
                sha256_hex(value.as_bytes()).into()
            }
            Self::Nfc => composed(value),
        })
    }
}

fn trimmed(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(visibility::trim(value)),
        Cow::Owned(value) => visibility::trim(&value).to_owned().into(),
    }
}

fn composed(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.is_ascii() || is_nfc_quick(value.chars()) == IsNormalized::Yes {
        value
    } else {
        value.nfc().collect::<String>().into()
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::hold_table;

    #[test]
    fn the_documented_transforms_are_those_of_the_code() {
        let row = |transform: &Transform| {
            let name = format!("`{}`", transform.contract_name());
            vec![name, transform.meaning().to_owned()]
        };
        hold_table(&["transform", "does"], Transform::ALL.iter().map(row));
    }
}
