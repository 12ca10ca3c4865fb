//! The codec of all services: no message reaches a handler before its field
//! rules hold.

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::{error, validate, validate::Validate};

/// [`ProstCodec`] with a decoder that checks what it decoded.
#[derive(Debug, Clone)]
pub struct ValidatedCodec<T, U>(ProstCodec<T, U>);

// Derived, it would ask the messages for `Default`.
impl<T, U> Default for ValidatedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for ValidatedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Validate + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ValidatedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatedDecoder(self.0.decoder())
    }
}

/// Decodes messages and answers `INVALID_ARGUMENT` for those that break a rule.
#[derive(Debug, Clone)]
pub struct ValidatedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Validate> Decoder for ValidatedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Prost's decoder fails only for bytes that are no such message. That
        // is the caller's error, and its text may quote what they sent.
        let message = self.0.decode(buf).map_err(|_| error::undecodable())?;
        if let Some(message) = &message {
            validate::check(message).map_err(error::invalid_fields)?;
        }
        Ok(message)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
