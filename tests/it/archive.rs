//! The main job, end to end: from a task ID to a proven object.

use reelvault::model::asset::AssetState;
use reelvault::report::record::Places;
use reelvault::report::record::Record;
use reelvault::simulator::source::FileKind;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use serde_json::Value;
use serde_json::json;

use crate::world::Plan;
use crate::world::World;

#[tokio::test]
async fn a_task_becomes_an_object_in_one_request() {
    let world = World::new(Plan::files_of(ByteSize::mib(1))).await;
    world.submit(3).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn a_task_becomes_an_object_in_parts() {
    let world = World::new(Plan::files_of(ByteSize::mib(17))).await;
    world.submit(3).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn the_record_says_how_long_and_how_large_a_video_is() {
    let media = |width: u32, height: u32| {
        let codec = "avc1.42C029";
        json!({"duration": 5.0, "width": width, "height": height, "codec": codec})
    };
    // In one request, then in parts: the larger the file, the larger the simulator's pictures.
    check_media(video(ByteSize::mib(1)), media(64, 48)).await;
    check_media(video(ByteSize::mib(17)), media(320, 176)).await;
    let still = Submission {
        format: Some(FileKind::Png),
        ..video(ByteSize::mib(1))
    };
    let size = json!({"duration": null, "width": 16, "height": 16, "codec": null});
    check_media(still, size).await;
    let sound = Submission {
        format: Some(FileKind::Mp3),
        ..video(ByteSize::mib(1))
    };
    check_media(sound, Value::Null).await;
}

fn video(size: ByteSize) -> Submission {
    Submission {
        size: Some(size),
        ..Submission::video("seedance-2.0")
    }
}

async fn check_media(wish: Submission, media: Value) {
    let world = World::new(Plan::files_of(ByteSize::mib(1))).await;
    let id = world.simulator.submit(wish).unwrap();
    world.announce(&[id]).await;
    let mut records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
    let record = records.remove(0);
    assert_eq!(record.assets[0].state, AssetState::Archived);
    let record = serde_json::to_value(Record::new(record, &Places::new())).unwrap();
    assert_eq!(record.pointer("/assets/0/media"), Some(&media));
}
