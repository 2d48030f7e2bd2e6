//! What an answer's headers tell of where its body ends.

use http::HeaderMap;
use http::header;

/// The length of the body, where no `Transfer-Encoding` overrides it.
pub fn told_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    digits(headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim())
}

/// A number as HTTP writes it.
pub fn digits(text: &str) -> Option<u64> {
    // `u64` would take a sign, HTTP does not.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Whether a body of HTTP/1.1 shows its end by a length or by chunks. Any other ends with its connection, whatever
/// coding it is said to have: nothing tells that from a connection that broke.
pub fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(last) = codings.next_back() else {
        return told_length(headers).is_some();
    };
    let last = last.to_str().unwrap_or_default().rsplit(',').next();
    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_length_or_chunks_tell_an_end_from_a_broken_connection() {
        #[track_caller]
        fn check(told: &[(header::HeaderName, &str)], length: Option<u64>, framed: bool) {
            let told = told.iter().cloned();
            let told = told.map(|(name, value)| (name, value.parse().unwrap()));
            // Appended, where a name comes twice.
            let mut headers = HeaderMap::new();
            told.for_each(|(name, value)| {
                headers.append(name, value);
            });
            let got = (told_length(&headers), is_framed(&headers));
            assert_eq!(got, (length, framed), "{headers:?}");
        }
        let length = |text| (header::CONTENT_LENGTH, text);
        let coding = |text| (header::TRANSFER_ENCODING, text);
        check(&[], None, false);
        check(&[length("100")], Some(100), true);
        check(&[length("+100")], None, false);
        check(&[coding("chunked")], None, true);
        check(&[coding("gzip, Chunked ")], None, true);
        check(&[coding("identity")], None, false);
        check(&[coding("chunked, identity")], None, false);
        check(&[coding("chunked"), coding("gzip")], None, false);
        // A length beside it is overridden, and may be wrong.
        check(&[length("100"), coding("identity")], None, false);
        check(&[length("100"), coding("chunked")], None, true);
    }
}
