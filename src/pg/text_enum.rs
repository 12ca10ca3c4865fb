//! Enums that are stored in text columns.

/// Declares an enum with the text of each variant, and its conversion to and from a text column.
/// A check constraint of the column allows only these texts. Any other text is a defect: the
/// statement that reads that text fails with INTERNAL.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($variant,)* }

        impl $name {
            /// The text in the column.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = String;

            fn try_from(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(format!("{text:?} is no {}", stringify!($name))),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
                Self::try_from(&*text).map_err(serde::de::Error::custom)
            }
        }

        impl sqlx::Type<sqlx::Postgres> for $name {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <str as sqlx::Type<sqlx::Postgres>>::type_info()
            }

            fn compatible(column: &sqlx::postgres::PgTypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Postgres>>::compatible(column)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $name {
            fn decode(
                value: sqlx::postgres::PgValueRef<'r>,
            ) -> Result<Self, sqlx::error::BoxDynError> {
                let text = <&str as sqlx::Decode<'r, sqlx::Postgres>>::decode(value)?;
                Ok(Self::try_from(text)?)
            }
        }
    };
}

pub(crate) use text_enum;

#[cfg(test)]
mod tests {
    text_enum! {
        /// A traffic light.
        Light { Red = "red", Green = "green", }
    }

    #[test]
    fn a_text_of_no_variant_is_an_error() {
        assert_eq!(Light::try_from("green"), Ok(Light::Green));
        assert_eq!(Light::Red.as_str(), "red");
        for text in ["", "Green", "blue"] {
            assert!(Light::try_from(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Light>("\"red\"").ok(), Some(Light::Red));
        assert!(serde_json::from_str::<Light>("\"blue\"").is_err());
    }
}
