//! Headers and metadata as bytes.
//!
//! Kafka's servers do not check these bytes. rdkafka's own calls panic at the first byte that is not UTF-8.
#![allow(unsafe_code, reason = "rdkafka has no safe calls for them")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::ptr;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::error::IsError as _;
use rdkafka::message::BorrowedMessage;

/// The name and the value of a header. A null value is empty.
pub(super) type RawHeader = (Vec<u8>, Vec<u8>);

/// The headers of a record, in order.
pub(super) fn of(message: &BorrowedMessage<'_>) -> Vec<RawHeader> {
    let mut headers = ptr::null_mut();
    // SAFETY: the message outlives the call. The message owns the headers.
    if unsafe { native::rd_kafka_message_headers(message.ptr(), &raw mut headers) }.is_error() {
        return Vec::new();
    }
    // SAFETY: without an error the pointer is valid, and the message outlives this function.
    let count = unsafe { native::rd_kafka_header_cnt(headers) };
    (0..count).map_while(|index| header(headers, index)).collect()
}

fn header(headers: *const native::rd_kafka_headers_t, index: usize) -> Option<RawHeader> {
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the caller's message owns the headers. The name ends with a zero byte, and the value has `size` bytes.
    unsafe {
        let found = native::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size);
        (!found.is_error() && !name.is_null()).then(|| {
            let value = if value.is_null() { &[] } else { std::slice::from_raw_parts(value.cast::<u8>(), size) };
            (CStr::from_ptr(name).to_bytes().to_vec(), value.to_vec())
        })
    }
}

/// The metadata of the partition at this place of the list, with replacements for bytes that are not UTF-8.
pub(super) fn metadata(list: &TopicPartitionList, index: usize) -> Cow<'_, str> {
    // SAFETY: the list has `cnt` elements, and owns them and their metadata while it is borrowed.
    unsafe {
        let list = &*list.ptr();
        if usize::try_from(list.cnt).is_ok_and(|count| index < count) {
            let element = &*list.elems.add(index);
            if !element.metadata.is_null() {
                let bytes = std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size);
                return String::from_utf8_lossy(bytes);
            }
        }
    }
    Cow::Borrowed("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_metadata_has_an_empty_text() {
        let mut list = TopicPartitionList::new();
        list.add_partition("topic", 0);
        assert_eq!((&*metadata(&list, 0), &*metadata(&list, 1)), ("", ""));
        list.elements()[0].set_metadata("1;0;0;");
        assert_eq!(metadata(&list, 0), "1;0;0;");
    }
}
