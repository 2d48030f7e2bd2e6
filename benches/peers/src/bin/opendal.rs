//! OpenDAL as a peer: the response's frames are written to a writer with parts, some of them in flight at once.

use anyhow::Result;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use opendal::Operator;
use opendal::layers::RetryLayer;
use opendal::services::S3;
use peers::PART_BYTES;
use peers::PARTS_AT_ONCE;
use peers::Work;

#[tokio::main]
async fn main() -> Result<()> {
    let work = Work::of_arguments()?;
    // Its payloads are unsigned as it comes.
    let store = S3::default()
        .endpoint(&work.sink)
        .region("us-east-1")
        .bucket("bench")
        .access_key_id("bench")
        .secret_access_key("bench")
        .disable_config_load()
        .disable_ec2_metadata();
    let store = Operator::new(store)?.layer(RetryLayer::new());
    let http = reqwest::Client::builder().http1_only().build()?;
    futures::stream::iter(&work.paths)
        .map(|path| {
            let link = format!("{}{path}", work.origin);
            tokio::spawn(moved(http.clone(), link, store.clone(), path.clone()))
        })
        .buffer_unordered(work.concurrent)
        .map(|joined| joined?)
        .try_collect()
        .await
}

async fn moved(http: reqwest::Client, link: String, store: Operator, path: String) -> Result<()> {
    let response = http.get(link).send().await?.error_for_status()?;
    let mut writer = store
        .writer_with(&path)
        .content_type("video/mp4")
        .chunk(PART_BYTES)
        .concurrent(PARTS_AT_ONCE)
        .await?;
    let mut frames = response.bytes_stream();
    while let Some(frame) = frames.try_next().await? {
        writer.write(frame).await?;
    }
    writer.close().await?;
    Ok(())
}
