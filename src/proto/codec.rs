//! The codec of all services: no message reaches a handler before its field
//! rules hold.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::validate::{self, Validate};
use crate::error;

/// The room for a message that each call begins with, in bytes, twice: most
/// messages fit, and larger ones grow. Tonic's own choice, 8 KiB, is beyond what
/// allocators hand out at once.
const ROOM: usize = 512;

/// The size from which on a stream's messages are sent without waiting for more,
/// in bytes: tonic's own choice.
const SEND_AT: usize = 32 * 1024;

/// A codec with a decoder that checks what it decoded.
#[derive(Debug, Clone)]
pub struct ValidatedCodec<T, U>(PhantomData<(T, U)>);

// Derived, it would ask the messages for `Default`.
impl<T, U> Default for ValidatedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(ROOM, SEND_AT)
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
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatedDecoder(ProstDecoder::new(buffers()))
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
