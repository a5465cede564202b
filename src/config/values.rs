//! Values of `apps.yaml` that may be written in more than one way, each with a visitor that says what it expected.
//!
//! serde's `untagged` would answer "data did not match any variant"; these say what would have been right, and their
//! schemas list the same alternatives.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// A mapping that keeps the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// The keys and values in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// A scalar taken as the text it is: `1.10` stays `1.10`, `true` is `true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A length of time as people write it: `30m`, `90s`, `1h30m`, `500ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Span(pub String);

impl Span {
    /// What a length of time looks like, as an ECMA regular expression for editors.
    pub const PATTERN: &'static str = r"^(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$|\$\{";

    /// The length; `None` when the text is no length of time, or none at all (`0s`).
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let mut rest = self.0.as_str();
        let mut millis: u64 = 0;
        for (unit, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            // `ms` is no minutes.
            if digits > 0 && rest[digits..].starts_with(unit) && (unit != "m" || !rest[digits..].starts_with("ms")) {
                let number: u64 = rest[..digits].parse().ok()?;
                millis = millis.checked_add(number.checked_mul(factor)?)?;
                rest = &rest[digits + unit.len()..];
            }
        }
        (rest.is_empty() && millis > 0).then(|| Duration::from_millis(millis))
    }

    /// A duration as [`Span`] writes it.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        let seconds = duration.as_secs();
        let mut text = String::new();
        let millis = u64::from(duration.subsec_millis());
        for (number, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis, "ms")] {
            if number > 0 {
                text.push_str(&format!("{number}{unit}"));
            }
        }
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Nothing at all (`0s`) is no length.
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "not": { "type": "string", "pattern": "^[0hms]*$" } })
    }
}

/// Defines an enum whose two variants are told apart by the shape of the value, with its visitor and schema.
macro_rules! either {
    (
        $(#[$doc:meta])*
        $name:ident, $expected:literal {
            $(#[$first_doc:meta])* $first:ident($first_type:ty) from $first_shape:ident,
            $(#[$second_doc:meta])* $second:ident($second_type:ty) from $second_shape:ident,
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum $name {
            $(#[$first_doc])*
            $first($first_type),
            $(#[$second_doc])*
            $second($second_type),
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Shapes;
                impl<'de> Visitor<'de> for Shapes {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    either!(@visit $name $first $first_shape);
                    either!(@visit $name $second $second_shape);
                }
                deserializer.deserialize_any(Shapes)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "anyOf": [generator.subschema_for::<$first_type>(), generator.subschema_for::<$second_type>()] })
            }
        }
    };
    (@visit $name:ident $variant:ident string) => {
        fn visit_str<E: de::Error>(self, value: &str) -> Result<$name, E> {
            Ok($name::$variant(value.to_owned()))
        }
    };
    (@visit $name:ident $variant:ident boolean) => {
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<$name, E> {
            Ok($name::$variant(value))
        }
    };
    (@visit $name:ident $variant:ident list) => {
        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<$name, A::Error> {
            Deserialize::deserialize(de::value::SeqAccessDeserializer::new(items)).map($name::$variant)
        }
    };
    (@visit $name:ident $variant:ident mapping) => {
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
            Deserialize::deserialize(de::value::MapAccessDeserializer::new(map)).map($name::$variant)
        }
    };
}

pub(super) use either;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_written() {
        for (text, seconds) in [("30m", 1800), ("90s", 90), ("1h", 3600), ("1h30m", 5400), ("1h2m3s", 3723)] {
            assert_eq!(Span(text.into()).duration(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0s", "30", "30 m", "1d", "m", "5m1h", "-1s", "99999999999999999999h", "18446744073709551615h"] {
            assert_eq!(Span(text.into()).duration(), None, "{text}");
        }
        assert_eq!(Span::of(Duration::from_secs(5400)).0, "1h30m");
        assert_eq!(Span::of(Duration::from_secs(90)).0, "1m30s");
    }
}
