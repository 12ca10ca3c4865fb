//! Settings of traces.

use super::Reader;
use crate::telemetry::Settings;

/// Reads the settings of the trace collector; `None` when traces are off or the endpoint is
/// invalid.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let endpoint: Option<String> =
        reader.read("OTEL_EXPORTER_OTLP_ENDPOINT", |text| match url::Url::parse(text) {
            _ if text == "off" => Ok(None),
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(text.to_owned())),
            _ => Err("must be a URL like http://localhost:4317, or off".into()),
        });
    let ratio = reader.read("OTEL_TRACES_SAMPLER_ARG", |text| {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
    });
    Some(Settings { endpoint: endpoint?, ratio })
}
