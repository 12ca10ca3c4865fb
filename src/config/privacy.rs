//! Settings of master keys.

use super::{
    transit,
    values::{Reader, Values},
};
use crate::{privacy::MasterSource, secrets::transit::TransitConnection};

/// Parses and checks only the settings of master keys.
///
/// # Errors
/// Fails with one message that lists every invalid setting.
pub fn master_keys(values: &Values) -> anyhow::Result<MasterSource> {
    let mut reader = Reader::new(values);
    let key_service = transit::read(&mut reader);
    let source = read(&mut reader, key_service);
    reader.finish()?;
    Ok(source)
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    key_service: Option<TransitConnection>,
) -> MasterSource {
    MasterSource {
        file: reader.path_or_off("MASTER_KEY_PATH"),
        service: reader.read("MASTER_TRANSIT_KEY", |key_name| match (key_name, key_service) {
            ("off", _) => Ok(None),
            (key_name, Some(key_service)) => Ok(Some((key_service, key_name.to_owned()))),
            (_, None) => Err("is of no use without TRANSIT_URL".into()),
        }),
    }
}
