//! Etags (AIP-154) and field masks (AIP-134), shared by all update methods.

use prost_types::FieldMask;

use crate::{
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// The etag of a row with this version.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// Checks that a row has not changed since the client read it. An empty etag skips the check.
///
/// # Errors
/// Returns ABORTED when the row has changed.
pub fn check_etag(given: &str, version: i64) -> Result<()> {
    if given.is_empty() || given == etag(version) {
        return Ok(());
    }
    Err(Error::refused(ErrorReason::EtagMismatch, "it changed since this etag was read"))
}

/// The fields that an update changes; `None` means the fields that are set.
pub struct Mask<'a>(Option<&'a [String]>);

impl<'a> Mask<'a> {
    /// Parses a mask. It may name only these fields.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when it names another field.
    pub fn read(mask: Option<&'a FieldMask>, fields: &[&str]) -> Result<Self> {
        let paths = mask.map(|mask| mask.paths.as_slice()).filter(|paths| !paths.is_empty());
        // `*` is refused too. It would replace the whole resource (AIP-134), and so clear fields
        // that an older client does not know.
        if !paths.unwrap_or_default().iter().all(|path| fields.contains(&path.as_str())) {
            let text = format!("must name fields, of {}", fields.join(", "));
            return Err(Error::field("update_mask", text));
        }
        Ok(Self(paths))
    }

    /// The new value of a field if the update changes it. With a mask, it changes when the mask
    /// names it; without a mask, when it is set.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when the mask names the field and it is not set.
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

    /// The new value of a list field if the update changes it. With a mask, it changes when the
    /// mask names it; without a mask, when it has items, because an unset list looks like an empty
    /// one.
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
