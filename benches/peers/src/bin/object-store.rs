//! The crate `object_store` as a peer: small objects are put as the frames that came, large ones part by part.

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::PutPayload;
use object_store::WriteMultipart;
use object_store::aws::AmazonS3;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use peers::PART_BYTES;
use peers::PARTS_AT_ONCE;
use peers::Work;

#[tokio::main]
async fn main() -> Result<()> {
    let work = Work::of_arguments()?;
    let store = AmazonS3Builder::new()
        .with_endpoint(&work.sink)
        .with_region("us-east-1")
        .with_bucket_name("bench")
        .with_access_key_id("bench")
        .with_secret_access_key("bench")
        .with_allow_http(true)
        .with_unsigned_payload(work.unsigned)
        .build()?;
    let http = reqwest::Client::builder().http1_only().build()?;
    futures::stream::iter(&work.paths)
        .map(|path| {
            let link = format!("{}{path}", work.origin);
            tokio::spawn(moved(
                http.clone(),
                link,
                store.clone(),
                Path::from(path.as_str()),
            ))
        })
        .buffer_unordered(work.concurrent)
        .map(|joined| joined?)
        .try_collect()
        .await
}

async fn moved(http: reqwest::Client, link: String, store: AmazonS3, path: Path) -> Result<()> {
    let response = http.get(link).send().await?.error_for_status()?;
    let length = response.content_length();
    let mut frames = response.bytes_stream();
    if length.is_some_and(|length| length <= PART_BYTES as u64) {
        let whole: Vec<Bytes> = frames.try_collect().await?;
        store.put(&path, PutPayload::from_iter(whole)).await?;
        return Ok(());
    }
    let upload = store.put_multipart(&path).await?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    while let Some(frame) = frames.try_next().await? {
        writer.wait_for_capacity(PARTS_AT_ONCE).await?;
        writer.put(frame);
    }
    writer.finish().await?;
    Ok(())
}
