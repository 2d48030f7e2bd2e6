//! What a `Content-Encoding` means for a body that was asked for as it is: often nothing but a label.

use futures::StreamExt as _;
use http::HeaderMap;
use http::header;

use crate::http::Body;
use crate::origin::OriginError;

/// The codings that change the bytes. Whatever else a `Content-Encoding` says, such as `aws-chunked` or `utf-8`, is a label
/// that stayed at a file by mistake.
const CODINGS: [&str; 7] = [
    "gzip",
    "x-gzip",
    "deflate",
    "compress",
    "x-compress",
    "br",
    "zstd",
];

/// How every gzip begins, so that a file that is only labelled so can be told.
const GZIP_BEGINS: [u8; 2] = [0x1f, 0x8b];

/// What `Content-Encoding` says was done to the bytes; gzip only where nothing else was.
pub(super) fn coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let said = values.filter_map(|value| value.to_str().ok());
    let said = said.flat_map(|value| value.split(','));
    let codings = said.map(|coding| coding.trim().to_ascii_lowercase());
    let real = codings.filter(|coding| CODINGS.contains(&coding.as_str()));
    real.min_by_key(|coding| is_gzip(coding))
}

/// Whether it is a coding that a file's first bytes tell.
pub(super) fn is_gzip(coding: &str) -> bool {
    matches!(coding, "gzip" | "x-gzip")
}

/// A body that is labelled as gzip, where it is none.
pub(super) async fn only_labelled(
    host: &str,
    coding: String,
    mut body: Body,
) -> Result<Body, OriginError> {
    let (mut frames, mut begins) = (Vec::new(), Vec::new());
    while begins.len() < GZIP_BEGINS.len()
        && let Some(frame) = body.next().await
    {
        let frame = frame.map_err(|error| OriginError::of_http(host, error))?;
        begins.extend(frame.iter().copied().take(GZIP_BEGINS.len()));
        frames.push(Ok(frame));
    }
    if begins.starts_with(&GZIP_BEGINS) {
        return Err(OriginError::Encoded {
            host: host.to_owned(),
            coding,
        });
    }
    Ok(futures::stream::iter(frames).chain(body).boxed())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn what_is_labelled_gzip_is_looked_at() {
        let check = async |frames: &[&'static [u8]], outcome: Result<&[u8], &str>| {
            let frames: Vec<_> = frames.iter().map(|it| Ok(Bytes::from_static(it))).collect();
            let body = futures::stream::iter(frames).boxed();
            let got = match only_labelled("cdn", "gzip".to_owned(), body).await {
                Ok(body) => Ok(body.map(Result::unwrap).collect::<Vec<_>>().await.concat()),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(got, outcome.map(<[u8]>::to_vec).map_err(str::to_owned));
        };
        let refused = Err("cdn sends content-encoding \"gzip\" unasked");
        check(&[b"\0\0\0 ftypisom", b"more"], Ok(b"\0\0\0 ftypisommore")).await;
        check(&[b"\x1f", b"", b"\xff"], Ok(b"\x1f\xff")).await;
        check(&[], Ok(b"")).await;
        check(&[b"\x1f\x8b\x08\0"], refused).await;
        check(&[b"\x1f", b"\x8b\x08"], refused).await;
    }
}
