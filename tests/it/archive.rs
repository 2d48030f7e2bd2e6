//! The main job, end to end: from a task ID to a proven object.

use reelvault::units::ByteSize;

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
