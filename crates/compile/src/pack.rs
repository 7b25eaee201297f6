//! Small conversions into Envoy's message types that every builder needs.

use std::time::Duration;

use prost::{Message, Name};
use proto::pb::google::protobuf;

/// A message inside an `Any`.
pub(crate) fn any<M: Message + Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A duration; [`Duration`] values beyond protobuf's range do not occur, because the sources refuse them.
pub(crate) fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A wrapped integer.
pub(crate) fn uint32(value: u32) -> protobuf::UInt32Value {
    protobuf::UInt32Value { value }
}

/// A wrapped boolean.
pub(crate) fn boolean(value: bool) -> protobuf::BoolValue {
    protobuf::BoolValue { value }
}
