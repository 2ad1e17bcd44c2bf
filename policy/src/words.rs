//! Enumerations that are written as words.

/// A set of words with one spelling each, as they stand in the configuration, on the bus and on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $accepted:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// The words in the order of their declaration.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word for this value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::PolicyError;

            fn from_str(text: &str) -> Result<Self, $crate::PolicyError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::PolicyError::Word { what: $what, found: text.to_owned(), accepted: $accepted }),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;
