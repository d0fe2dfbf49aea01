//! How messages become bytes: as protobuf, with buffers that begin small.
//!
//! A control plane holds one stream for each of thousands of agents, and nearly all of what they say fits in some hundred bytes.
//! tonic's own buffers are 8 KiB in each direction for as long as a stream lasts; these grow to what a message needs. Every
//! service of `plumb.v1` is generated with this codec.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a buffer begins with, in bytes: a heartbeat, an acknowledgement, a small status.
const BUFFER_BYTES: usize = 512;

/// What is handed to the transport at once, in bytes, when several messages wait: tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
