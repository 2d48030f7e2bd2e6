//! Task APIs that lie and fail, and tasks with many results or none: nothing wrong is archived, nothing is lost for it.

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetIndex;
use reelvault::model::task::TaskState;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Ending;
use reelvault::simulator::script::Fault;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Lie;
use reelvault::simulator::script::Rule;
use reelvault::simulator::tasks::Submission;
use reelvault::simulator::tasks::TaskKind;
use reelvault::units::ByteSize;
use reelvault::units::Span;

use crate::faults::Kind;
use crate::faults::SMALL;
use crate::world::World;

/// Half of the smallest body.
const SOME: Option<ByteSize> = Some(ByteSize::bytes(300 * 1024));

#[tokio::test]
async fn every_result_of_a_task_is_archived() {
    let world = World::new(Kind::Generic.plan(SMALL)).await;
    let wish = |kind, count| Submission {
        kind,
        count,
        ..Submission::video("several")
    };
    let wishes = [
        wish(TaskKind::Video, 3),
        wish(TaskKind::Image, 4),
        wish(TaskKind::Audio, 2),
    ];
    let ids = wishes.map(|wish| world.simulator.submit(wish).unwrap());
    for id in &ids {
        let rule = |fault, index| Rule::file(fault).task(id).index(AssetIndex(index));
        world.simulator.plant(rule(FileFault::Dead(403), 1));
        world.simulator.plant(rule(FileFault::Truncate(SOME), 0));
    }
    world.announce(&ids).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
    let kinds: Vec<_> = records
        .iter()
        .flat_map(|record| &record.assets)
        .map(|asset| asset.content_type.as_deref().unwrap_or_default())
        .collect();
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!(count("video/mp4"), 3);
    assert_eq!(count("image/png"), 4);
    assert_eq!(count("audio/mpeg"), 2);
}

#[tokio::test]
async fn a_task_that_does_not_complete_ends_with_the_reason_of_its_provider() {
    let ends = [
        (
            Ending::Fails("content_policy".to_owned()),
            TaskState::Failed,
            Some("content_policy"),
        ),
        (Ending::Cancelled, TaskState::Cancelled, None),
        (
            Ending::CancelledAsFailed,
            TaskState::Cancelled,
            Some("request_cancelled"),
        ),
    ];
    let world = World::new(Kind::Generic.plan(SMALL)).await;
    for (ending, _, _) in &ends {
        world
            .simulator
            .plant(Rule::new(Fault::Ending(ending.clone())));
    }
    let ids = world.submit(ends.len()).await;
    let records = world.run_to_the_end().await;
    for (id, (ending, state, code)) in ids.iter().zip(&ends) {
        let record = records.iter().find(|record| record.key.id == *id).unwrap();
        assert_eq!(record.state, *state, "{ending:?}");
        let said = record.task_error.as_ref().map(|error| error.code.as_str());
        assert_eq!(said, *code, "{ending:?}");
        assert!(record.assets.is_empty());
    }
}

/// Together, since both mostly wait for the next look.
#[tokio::test]
async fn a_task_api_that_lies_or_fails_loses_nothing() {
    tokio::join!(check_lies(), check_api_faults());
}

async fn check_lies() {
    let huge = ByteSize::mib(3);
    let lies = [
        Lie::NoResults,
        Lie::UnknownStatus,
        Lie::Back,
        Lie::OtherId,
        Lie::WrongTypes,
        Lie::Huge(huge),
    ];
    let runs = lies.map(|lie| async move {
        let mut plan = Kind::Generic.plan(SMALL);
        plan.extra.push_str("[poll]\nfirst = \"1s\"\n");
        let world = World::new(plan).await;
        let wish = Submission {
            kind: TaskKind::Image,
            ..Submission::video("liar")
        };
        let ids = [wish.clone(), wish].map(|wish| world.simulator.submit(wish).unwrap());
        world.simulator.plant(Rule::lie(lie.clone()).task(&ids[0]));
        world.announce(&ids).await;
        let records = world.run_to_the_end().await;
        println!("{lie:?}");
        world.assert_all_archived(&records);
        assert_eq!(world.simulator.seen().faults, 1);
    });
    futures::future::join_all(runs).await;
}

async fn check_api_faults() {
    let faults = [
        ApiFault::TooMany(None),
        ApiFault::TooMany(Some(Span::from_secs(1))),
        ApiFault::Internal,
        ApiFault::Html,
    ];
    let runs = faults.map(|fault| async move {
        let world = World::new(Kind::Generic.plan(SMALL)).await;
        world.simulator.plant(Rule::api(fault.clone()));
        world.submit(2).await;
        let records = world.run_to_the_end().await;
        println!("{fault:?}");
        world.assert_all_archived(&records);
        assert_eq!(world.simulator.seen().faults, 1);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn an_account_that_is_refused_keeps_its_tasks() {
    let faults = [
        (ApiFault::Unauthorized, "401"),
        (ApiFault::PaymentRequired, "402"),
        (ApiFault::Forbidden, "403"),
    ];
    let runs = faults.map(|(fault, status)| async move {
        let world = World::new(Kind::Generic.plan(SMALL)).await;
        world.simulator.plant(Rule::api(fault).times(u32::MAX));
        world.submit(2).await;
        let has_error = |records: &[TaskRecord]| records.iter().any(|it| it.error.is_some());
        for record in world.run_until(has_error).await {
            // The account is told of at the task that was asked about.
            let error = record.error.unwrap_or_else(|| status.to_owned());
            assert!(error.contains(status), "{error}");
            assert_eq!(record.state, TaskState::Watching);
            assert!(record.next_look_at.is_some());
        }
    });
    futures::future::join_all(runs).await;
}
