//! What the gateway answers from: a task with its provider's last answer.

use super::world::*;
use crate::manifest::row::*;
use crate::model::task::Progress;
use crate::model::task::Sighting;
use crate::model::task::TaskState;

pub(in crate::manifest) async fn the_last_answer_about_what_is_over_is_kept(world: &World) {
    let manifest = &world.manifest;
    assert!(manifest.served_task(&key("a")).await.unwrap().is_none());
    let new = NewTask {
        callback: Some("https://caller.example/h?k=1".parse().unwrap()),
        ..world.task("a")
    };
    manifest.learn(vec![new]).await.unwrap();
    let known = manifest.served_task(&key("a")).await.unwrap().unwrap();
    assert_eq!(known.task.state, TaskState::Watching);
    assert_eq!(
        known.callback.unwrap().as_str(),
        "https://caller.example/h?k=1"
    );
    assert_eq!((known.answer, known.over_since), (None, None));

    // What is not over is not kept, whatever comes with it.
    let claimed = manifest.claim_tasks(1, &[]).await.unwrap();
    let running = Observation {
        sighting: Sighting {
            answer: Some(b"early".to_vec()),
            ..sighting(Progress::Running)
        },
        next_look_at: Some(world.after(0)),
        ..world.running()
    };
    manifest.observe(&claimed[0].lease, running).await.unwrap();
    let known = manifest.served_task(&key("a")).await.unwrap().unwrap();
    assert_eq!(known.answer, None);

    let claimed = manifest.claim_tasks(1, &[]).await.unwrap();
    let mut completed = world.completed(&["1.mp4"]);
    completed.sighting.answer = Some(b"first".to_vec());
    completed.next_look_at = Some(world.after(5));
    let over = world.after(0);
    manifest
        .observe(&claimed[0].lease, completed.clone())
        .await
        .unwrap();
    // A later look brings another answer, and not another end.
    world.advance(5);
    let claimed = manifest.claim_tasks(1, &[]).await.unwrap();
    completed.sighting.answer = Some(b"second".to_vec());
    completed.next_look_at = None;
    manifest
        .observe(&claimed[0].lease, completed)
        .await
        .unwrap();
    let known = manifest.served_task(&key("a")).await.unwrap().unwrap();
    assert_eq!(known.answer.as_deref(), Some(&b"second"[..]));
    assert_eq!(known.over_since, Some(over));
    assert_eq!(known.task.assets.len(), 1);

    assert!(
        manifest
            .forget(&key("a").provider, &key("a").id)
            .await
            .unwrap()
    );
    assert!(manifest.served_task(&key("a")).await.unwrap().is_none());
    manifest.learn(vec![world.task("a")]).await.unwrap();
    let known = manifest.served_task(&key("a")).await.unwrap().unwrap();
    assert_eq!(known.answer, None, "it went with the task");
}
