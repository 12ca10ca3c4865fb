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
pub fn check_etag(etag_of_request: &str, version: i64) -> Result<()> {
    if etag_of_request.is_empty() || etag_of_request == etag(version) {
        return Ok(());
    }
    Err(Error::refused(ErrorReason::EtagMismatch, "the resource changed since this etag was read"))
}

/// The fields that an update changes. `None` means all fields that the request sets.
pub struct Mask<'a>(Option<&'a [String]>);

impl<'a> Mask<'a> {
    /// Parses a mask that may contain only `fields`.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when the mask contains another field.
    pub fn read(mask: Option<&'a FieldMask>, fields: &[&str]) -> Result<Self> {
        let paths = mask.map(|mask| mask.paths.as_slice()).filter(|paths| !paths.is_empty());
        // `*` is refused too. It means that the update replaces the whole resource (AIP-134). An
        // old client does not know fields that were added later, so its update would clear these
        // fields.
        if !paths.unwrap_or_default().iter().all(|path| fields.contains(&path.as_str())) {
            let text = format!("must name only these fields: {}", fields.join(", "));
            return Err(Error::field("update_mask", text));
        }
        Ok(Self(paths))
    }

    /// The new value of a field, or `None` when the update does not change the field. With a mask,
    /// the update changes the fields in the mask. Without a mask, the update changes the fields
    /// that are set.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` when the field is in the mask and is not set.
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

    /// The new value of a list field, or `None` when the update does not change the field. With a
    /// mask, the update changes the fields in the mask. Without a mask, the update changes the
    /// lists that have items, because an unset list can't be distinguished from an empty list.
    #[must_use]
    pub fn take_list<T>(&self, field: &str, items: Vec<T>) -> Option<Vec<T>> {
        let is_in_mask = self.0.map(|paths| paths.iter().any(|path| path == field));
        is_in_mask.unwrap_or(!items.is_empty()).then_some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_with_a_mask_changes_its_fields_and_without_a_mask_all_fields_that_are_set() {
        let field_mask = FieldMask { paths: vec!["name".into()] };
        let mask = Mask::read(Some(&field_mask), &["name", "slug"])
            .expect("the mask contains only allowed fields");
        assert_eq!(mask.take("name", Some(1)).ok(), Some(Some(1)));
        assert_eq!(mask.take("slug", Some(1)).ok(), Some(None));
        assert!(mask.take::<i32>("name", None).is_err());
        assert_eq!(mask.take_list("name", Vec::<i32>::new()), Some(vec![]));

        let no_mask = Mask::read(None, &["name"]).expect("a missing mask is valid");
        assert_eq!(no_mask.take("name", Some(1)).ok(), Some(Some(1)));
        assert_eq!(no_mask.take_list("name", Vec::<i32>::new()), None);

        assert!(Mask::read(Some(&field_mask), &["slug"]).is_err());
    }

    /// N20: an update never replaces the whole resource.
    #[test]
    fn a_mask_with_a_wildcard_or_an_unknown_field_is_refused() {
        for paths in [vec!["*"], vec!["name", "*"], vec![""], vec!["NAME"]] {
            let field_mask = FieldMask { paths: paths.into_iter().map(str::to_owned).collect() };
            assert!(Mask::read(Some(&field_mask), &["name"]).is_err(), "{field_mask:?}");
        }
    }

    #[test]
    fn an_outdated_etag_is_refused_and_an_empty_etag_is_accepted() {
        assert!(check_etag("", 3).is_ok() && check_etag(&etag(3), 3).is_ok());
        assert!(check_etag(&etag(2), 3).is_err() && check_etag("x", 3).is_err());
    }
}
