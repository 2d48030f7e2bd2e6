//! Base64 as others write it: in either alphabet, padded or not.

use aws_smithy_types::base64;

/// In the alphabet of URLs, without padding.
pub(super) fn encode_url(bytes: &[u8]) -> String {
    let text = base64::encode(bytes);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

/// What was written in either alphabet, padded or not.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut plain = digits.replace('-', "+").replace('_', "/");
    let padding = plain.len().next_multiple_of(4) - plain.len();
    plain.extend(std::iter::repeat_n('=', padding));
    base64::decode(plain).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_those_of_rfc_4648() {
        for (plain, expected) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("??>", "Pz8-"),
            ("\u{7ff}", "378"),
        ] {
            assert_eq!(encode_url(plain.as_bytes()), expected, "{plain}");
        }
        assert_eq!(encode_url(&[0xff, 0xef, 0xff]), "_-__");
        assert_eq!(decode("Pz8+"), decode("Pz8-"));
        for none in ["!", "Z", "Zg Zg", "ü"] {
            assert_eq!(decode(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let padded = base64::encode(&bytes);
            prop_assert_eq!(decode(&padded), Some(bytes.clone()));
            prop_assert_eq!(decode(&encode_url(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics_it(text in "\\PC{0,40}") {
            decode(&text);
        }
    }
}
