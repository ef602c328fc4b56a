//! Mapping syntax of `--map`: `context_key=user_id,email:trim,lowercase`.

use std::str::FromStr;

use crate::{
    domain::Transform,
    pb::{FieldMapping, field_mapping::Transform as PbTransform},
};

/// One `--map`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MapArg(pub FieldMapping);

impl FromStr for MapArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (field, rest) = text
            .split_once('=')
            .ok_or("write it like context_key=user_id,email:trim,lowercase")?;
        let (sources, transforms) = rest.split_once(':').unwrap_or((rest, ""));
        let mapping = FieldMapping {
            field: field.trim().to_owned(),
            sources: names(sources).map(str::to_owned).collect(),
            transforms: names(transforms).map(transform).collect::<Result<_, _>>()?,
        };
        if mapping.field.is_empty() || mapping.sources.is_empty() {
            return Err("name the field and at least one identifier".into());
        }
        Ok(Self(mapping))
    }
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

fn transform(name: &str) -> Result<i32, String> {
    let known = Transform::ALL.iter().find(|known| known.name() == name);
    let known = known.ok_or_else(|| {
        let names = Transform::listed(Transform::name);
        format!("the transform `{name}` is none of {names}")
    })?;
    let of_contract = PbTransform::from_str_name(known.contract_name());
    Ok(of_contract
        .expect("a test finds each transform in the contract")
        .into())
}

/// The help of `--map`.
pub(super) fn help() -> String {
    let names = Transform::listed(Transform::name);
    format!(
        "Replaces the destination's mapping, such as context_key=user_id,email:trim,lowercase \
         (transforms: {names})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_read() {
        let MapArg(mapping) = "context_key=user_id, email:trim,nfc,sha256"
            .parse()
            .unwrap();
        assert_eq!(mapping.field, "context_key");
        assert_eq!(mapping.sources, ["user_id", "email"]);
        let transforms: Vec<_> = mapping.transforms().collect();
        assert_eq!(
            transforms,
            [PbTransform::Trim, PbTransform::Nfc, PbTransform::Sha256Hex]
        );
        let MapArg(plain) = "context_key=email".parse().unwrap();
        assert!(plain.transforms.is_empty());
    }

    #[test]
    fn a_mapping_that_says_too_little_is_refused() {
        for wrong in [
            "context_key",
            "=email",
            "context_key=",
            "context_key=:trim",
            "a=b:upper",
        ] {
            assert!(wrong.parse::<MapArg>().is_err(), "{wrong}");
        }
    }
}
