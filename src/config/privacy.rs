//! Settings of master keys.

use super::{
    transit,
    values::{Reader, Values},
};
use crate::{privacy::MasterSource, secrets::transit::TransitAddress};

/// Checks the settings of master keys alone.
///
/// # Errors
/// One message that lists every invalid setting.
pub fn master_keys(values: &Values) -> anyhow::Result<MasterSource> {
    let mut reader = Reader::new(values);
    let service = transit::read(&mut reader);
    let source = read(&mut reader, service);
    reader.finish()?;
    Ok(source)
}

pub(super) fn read(reader: &mut Reader<'_>, service: Option<TransitAddress>) -> MasterSource {
    MasterSource {
        file: reader.path_or_off("MASTER_KEY_PATH"),
        service: reader.read("MASTER_TRANSIT_KEY", |name| match (name, service) {
            ("off", _) => Ok(None),
            (name, Some(service)) => Ok(Some((service, name.to_owned()))),
            (_, None) => Err("is of no use without TRANSIT_URL".into()),
        }),
    }
}
