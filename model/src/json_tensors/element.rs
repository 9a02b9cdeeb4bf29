//! One element of a tensor: its conversion from JSON to bytes and back.

use std::fmt;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::datatype::Datatype;

/// An element as read from JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Element {
    Bool(bool),
    Integer(i64),
    Float(f64),
}

impl Element {
    /// Appends the element as `datatype`, little-endian. Returns false if the element is not a value of that type.
    pub(super) fn write(self, datatype: Datatype, to: &mut Vec<u8>) -> bool {
        let bytes = |bytes: &[u8], to: &mut Vec<u8>| to.extend_from_slice(bytes);
        match (datatype, self) {
            (Datatype::Bool, Self::Bool(value)) => to.push(u8::from(value)),
            (Datatype::Uint8, Self::Integer(value)) => match u8::try_from(value) {
                Ok(value) => to.push(value),
                Err(_) => return false,
            },
            (Datatype::Int8, Self::Integer(value)) => match i8::try_from(value) {
                Ok(value) => bytes(&value.to_le_bytes(), to),
                Err(_) => return false,
            },
            (Datatype::Int16, Self::Integer(value)) => match i16::try_from(value) {
                Ok(value) => bytes(&value.to_le_bytes(), to),
                Err(_) => return false,
            },
            (Datatype::Int32, Self::Integer(value)) => match i32::try_from(value) {
                Ok(value) => bytes(&value.to_le_bytes(), to),
                Err(_) => return false,
            },
            (Datatype::Int64, Self::Integer(value)) => bytes(&value.to_le_bytes(), to),
            (Datatype::Fp32, Self::Integer(value)) => bytes(&(value as f32).to_le_bytes(), to),
            (Datatype::Fp64, Self::Integer(value)) => bytes(&(value as f64).to_le_bytes(), to),
            // A number outside the range of 32 bits would silently become infinite.
            (Datatype::Fp32, Self::Float(value)) if (value as f32).is_finite() => {
                bytes(&(value as f32).to_le_bytes(), to);
            }
            (Datatype::Fp64, Self::Float(value)) => bytes(&value.to_le_bytes(), to),
            _ => return false,
        }
        true
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneElement;

        impl Visitor<'_> for OneElement {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, true or false (data is flat, in row-major order)")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Element, E> {
                Ok(Element::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Element, E> {
                Ok(Element::Integer(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Element, E> {
                Ok(i64::try_from(value).map_or(Element::Float(value as f64), Element::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Element, E> {
                Ok(Element::Float(value))
            }
        }

        deserializer.deserialize_any(OneElement)
    }
}

/// What a reader keeps of the elements that it has checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Keep {
    All,
    Nothing,
}

/// Converts the elements of a tensor one by one.
pub(super) struct ElementReader {
    datatype: Datatype,
    keep: Keep,
    /// The number of elements.
    pub(super) count: usize,
    /// The first element that is not a value of the datatype, with its position.
    pub(super) misfit: Option<(usize, Element)>,
    /// The elements, little-endian; empty if none are kept.
    pub(super) data: Vec<u8>,
}

impl ElementReader {
    pub(super) fn new(datatype: Datatype, keep: Keep) -> Self {
        Self { datatype, keep, count: 0, misfit: None, data: Vec::new() }
    }

    /// Takes memory for `count` elements at once. A list that grows takes up to three times the memory.
    pub(super) fn expect(&mut self, count: usize) {
        if self.keep == Keep::All {
            self.data.reserve_exact(count.saturating_mul(self.datatype.size_bytes().unwrap_or(1)));
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut ElementReader {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut ElementReader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<Element>()? {
            // The whole list is read even after a misfit, because a wrong number of elements is the fault to report.
            let is_full = self.keep == Keep::All && self.data.len() == self.data.capacity();
            if is_full {
                // More elements than the shape has are counted, and not kept.
                self.count += 1;
                continue;
            }
            if self.misfit.is_none() && !element.write(self.datatype, &mut self.data) {
                self.misfit = Some((self.count, element));
            }
            if self.keep == Keep::Nothing || self.misfit.is_some() {
                self.data.clear();
            }
            self.count += 1;
        }
        Ok(())
    }
}

/// The elements of a tensor, to be written as JSON.
pub(super) struct Elements<'a> {
    pub(super) datatype: Datatype,
    pub(super) data: &'a [u8],
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.data;
        match self.datatype {
            Datatype::Bool => each(data, serializer, |[byte]: [u8; 1]| byte != 0),
            Datatype::Uint8 | Datatype::Bytes => each(data, serializer, u8::from_le_bytes),
            Datatype::Int8 => each(data, serializer, i8::from_le_bytes),
            Datatype::Int16 => each(data, serializer, i16::from_le_bytes),
            Datatype::Int32 => each(data, serializer, i32::from_le_bytes),
            Datatype::Int64 => each(data, serializer, i64::from_le_bytes),
            Datatype::Fp32 => each(data, serializer, f32::from_le_bytes),
            Datatype::Fp64 => each(data, serializer, f64::from_le_bytes),
        }
    }
}

fn each<const SIZE: usize, T: Serialize, S: Serializer>(
    data: &[u8],
    serializer: S,
    element: impl Fn([u8; SIZE]) -> T,
) -> Result<S::Ok, S::Error> {
    let (elements, _) = data.as_chunks::<SIZE>();
    let mut list = serializer.serialize_seq(Some(elements.len()))?;
    for bytes in elements {
        list.serialize_element(&element(*bytes))?;
    }
    list.end()
}
