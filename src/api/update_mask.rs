//! What all updates share: etags (AIP-154) and field masks (AIP-134).

use prost_types::FieldMask;

use crate::{
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// The etag of a row's version.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// Checks that a row is as the client read it; an empty etag does not ask.
///
/// # Errors
/// ABORTED when the row has changed.
pub fn check_etag(given: &str, version: i64) -> Result<()> {
    if given.is_empty() || given == etag(version) {
        return Ok(());
    }
    Err(Error::refused(ErrorReason::EtagMismatch, "it changed since this etag was read"))
}

/// Which fields an update changes.
pub struct Mask<'a>(Option<&'a [String]>);

impl<'a> Mask<'a> {
    /// Reads a mask over these fields.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it names another field.
    pub fn read(mask: Option<&'a FieldMask>, fields: &[&str]) -> Result<Self> {
        let paths = mask.map(|mask| mask.paths.as_slice()).filter(|paths| !paths.is_empty());
        // `*` would mean to replace the whole (AIP-134), and so to empty what a client
        // does not know of.
        if !paths.unwrap_or_default().iter().all(|path| fields.contains(&path.as_str())) {
            let text = format!("must name fields, of {}", fields.join(", "));
            return Err(Error::field("update_mask", text));
        }
        Ok(Self(paths))
    }

    /// The new value of a field, when the update changes it: when the mask
    /// names it, or without a mask when it is set.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the mask names it and it is not set.
    pub fn take<T>(&self, field: &str, value: Option<T>) -> Result<Option<T>> {
        match self.0 {
            Some(paths) if paths.iter().any(|path| path == field) => match value {
                Some(value) => Ok(Some(value)),
                None => Err(Error::field(field, "is in the update_mask, so it must be set")),
            },
            Some(_) => Ok(None),
            None => Ok(value),
        }
    }

    /// The new value of a list, which can't tell unset from empty: changed when
    /// the mask names it, or without a mask when it has items.
    #[must_use]
    pub fn take_list<T>(&self, field: &str, items: Vec<T>) -> Option<Vec<T>> {
        let named = self.0.map(|paths| paths.iter().any(|path| path == field));
        named.unwrap_or(!items.is_empty()).then_some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_decides_and_without_one_what_is_set() {
        let given = FieldMask { paths: vec!["name".into()] };
        let mask = Mask::read(Some(&given), &["name", "slug"]).expect("a mask");
        assert_eq!(mask.take("name", Some(1)).ok(), Some(Some(1)));
        assert_eq!(mask.take("slug", Some(1)).ok(), Some(None));
        assert!(mask.take::<i32>("name", None).is_err());
        assert_eq!(mask.take_list("name", Vec::<i32>::new()), Some(vec![]));

        let none = Mask::read(None, &["name"]).expect("no mask");
        assert_eq!(none.take("name", Some(1)).ok(), Some(Some(1)));
        assert_eq!(none.take_list("name", Vec::<i32>::new()), None);

        assert!(Mask::read(Some(&given), &["slug"]).is_err());
    }

    /// N20
    #[test]
    fn a_mask_of_everything_is_refused() {
        for paths in [vec!["*"], vec!["name", "*"], vec![""], vec!["NAME"]] {
            let given = FieldMask { paths: paths.into_iter().map(str::to_owned).collect() };
            assert!(Mask::read(Some(&given), &["name"]).is_err(), "{given:?}");
        }
    }

    #[test]
    fn etags_guard() {
        assert!(check_etag("", 3).is_ok() && check_etag(&etag(3), 3).is_ok());
        assert!(check_etag(&etag(2), 3).is_err() && check_etag("x", 3).is_err());
    }
}
