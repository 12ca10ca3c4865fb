//! The codec of all services. It checks the field rules of each message before a handler gets it.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::validate::{self, Validate};
use crate::error;

/// The initial size of each of the two buffers of a call, in bytes. Most messages fit, and the
/// buffers grow for larger messages. Tonic's default is 8 KiB, which memory allocators allocate
/// more slowly.
const INITIAL_BUFFER: usize = 512;

/// A stream's messages are sent when this many bytes are buffered. This is tonic's default.
const FLUSH_AT: usize = 32 * 1024;

/// A codec whose decoder validates each message.
#[derive(Debug, Clone)]
pub struct ValidatedCodec<T, U>(PhantomData<(T, U)>);

// A derived `Default` would require `Default` of the messages.
impl<T, U> Default for ValidatedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(INITIAL_BUFFER, FLUSH_AT)
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

/// Decodes messages and returns `INVALID_ARGUMENT` for a message that breaks a rule.
#[derive(Debug, Clone)]
pub struct ValidatedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Validate> Decoder for ValidatedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Prost's decoder fails only for malformed bytes, which is the client's error. The text of
        // the error is dropped, because it may quote the client's data.
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
