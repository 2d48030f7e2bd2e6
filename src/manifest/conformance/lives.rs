//! Random lives of tasks and assets against a small reference model of claims, tokens and states.

use std::collections::BTreeMap;

use super::world::World;
use super::world::key;
use super::world::proof;
use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::lease::Lease;
use crate::model::task::TaskState;

/// Steps of one run.
const STEPS: usize = 250;

/// Tasks that there are at most: few, so that steps meet.
const TASKS: usize = 8;

/// What the model knows of a row that is worked under a lease.
#[derive(Clone, Debug)]
struct Row {
    deadline: Timestamp,
    due: Option<Timestamp>,
    token: i64,
    expires: Option<Timestamp>,
}

impl Row {
    fn can_be_claimed(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now) && self.expires.is_none_or(|expires| expires <= now)
    }

    fn holds(&self, lease: &Lease) -> bool {
        self.token == lease.token.0 && self.expires.is_some()
    }
}

/// The reference: what the manifest must agree with.
#[derive(Debug, Default)]
struct Model {
    tasks: BTreeMap<String, (TaskState, Row)>,
    /// By the ID of the task, which has one.
    assets: BTreeMap<String, (AssetState, Row)>,
}

/// Claims that were given at some time, whether they still hold or not.
#[derive(Default)]
struct Hands {
    tasks: Vec<(String, Lease)>,
    assets: Vec<(String, ClaimedAsset)>,
}

/// The most urgent rows that can be claimed, as the model has them; each gets its claim.
fn claim<State>(
    rows: &mut BTreeMap<String, (State, Row)>,
    now: Timestamp,
    until: Timestamp,
    most: usize,
) -> Vec<(String, i64)> {
    let mut due: Vec<_> = rows
        .iter_mut()
        .filter(|(_, (_, row))| row.can_be_claimed(now))
        .collect();
    due.sort_by_key(|(_, (_, row))| (row.deadline, row.due));
    let mut claimed = Vec::new();
    for (id, (_, row)) in due.into_iter().take(most) {
        row.token += 1;
        row.expires = Some(until);
        claimed.push((id.clone(), row.token));
    }
    claimed
}

/// Whether a write under the lease must be taken; what the manifest answered has to agree.
#[track_caller]
fn agree<T: std::fmt::Debug>(holds: bool, outcome: &Result<T, ManifestError>) {
    let is_stale = matches!(outcome, Err(ManifestError::Stale { .. }));
    assert!(
        if holds { outcome.is_ok() } else { is_stale },
        "{outcome:?}"
    );
}

pub(in crate::manifest) async fn random_lives_agree_with_the_model(world: &World) {
    let seed = std::env::var("LIVES_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut model, mut hands) = (Model::default(), Hands::default());
    for step in 0..STEPS {
        // Shown when the test fails.
        println!("LIVES_SEED={seed}, step {step}");
        one_step(world, &mut dice, &mut model, &mut hands).await;
    }
    for (id, (state, row)) in &model.tasks {
        let record = world.record(id).await;
        assert_eq!(
            (record.state, record.next_look_at),
            (*state, row.due),
            "{id}"
        );
        let states: Vec<_> = record
            .assets
            .iter()
            .map(|it| (it.state, it.due_at))
            .collect();
        let asset = model.assets.get(id).map(|(state, row)| (*state, row.due));
        assert_eq!(states, asset.into_iter().collect::<Vec<_>>(), "{id}");
    }
}

async fn one_step(world: &World, dice: &mut fastrand::Rng, model: &mut Model, hands: &mut Hands) {
    let (now, until) = (world.now(), world.now().plus(super::world::LEASE));
    match dice.u8(0..10) {
        0 | 1 => world.advance(dice.u64(1..40)),
        2 => learn(world, dice, model).await,
        3 | 4 => {
            // So many that the window of a claim is all that there is.
            let most = dice.usize(2..5);
            let expected = claim(&mut model.tasks, now, until, most);
            let claimed = world.manifest.claim_tasks(most, &[]).await.unwrap();
            let found = claimed
                .iter()
                .map(|it| (it.key.id.to_string(), it.lease.token.0));
            assert_eq!(found.collect::<Vec<_>>(), expected);
            let given = claimed.iter().map(|it| (it.key.id.to_string(), it.lease));
            hands.tasks.extend(given);
        }
        5 => {
            let most = dice.usize(1..4);
            let expected = claim(&mut model.assets, now, until, most);
            let claimed = world.manifest.claim_assets(most).await.unwrap();
            let found = claimed
                .iter()
                .map(|it| (it.task.id.to_string(), it.lease.token.0));
            assert_eq!(found.collect::<Vec<_>>(), expected);
            let given = claimed.into_iter().map(|it| (it.task.id.to_string(), it));
            hands.assets.extend(given);
        }
        6 | 7 => look(world, dice, model, hands).await,
        8 => archive(world, dice, model, hands).await,
        _ => renew(world, model, hands, until).await,
    }
}

async fn learn(world: &World, dice: &mut fastrand::Rng, model: &mut Model) {
    let id = format!("t{}", dice.usize(0..TASKS));
    let mut task = world.task(&id);
    // Every deadline is another, so that the order of claims is certain.
    task.deadline = world.deadline(1000 + dice.u64(0..1_000_000));
    let deadline = task.deadline.at;
    let learned = world.manifest.learn(vec![task]).await.unwrap();
    let known = model
        .tasks
        .get(&id)
        .map(|(state, _)| Learned::Known(*state));
    assert_eq!(learned, [known.unwrap_or(Learned::New)]);
    let row = Row {
        deadline,
        due: Some(world.now()),
        token: 0,
        expires: None,
    };
    model.tasks.entry(id).or_insert((TaskState::Watching, row));
}

async fn look(world: &World, dice: &mut fastrand::Rng, model: &mut Model, hands: &mut Hands) {
    if hands.tasks.is_empty() {
        return;
    }
    let (id, lease) = hands.tasks.swap_remove(dice.usize(0..hands.tasks.len()));
    let (state, row) = model.tasks.get_mut(&id).unwrap();
    let holds = row.holds(&lease);
    let deadline = world.deadline(1000 + dice.u64(0..1_000_000));
    let after = world.after(dice.u64(1..60));
    let (outcome, becomes, due) = match dice.u8(0..4) {
        0 => {
            let mut seen = world.completed(&[&id]);
            (seen.deadline, seen.assets[0].deadline) = (deadline, deadline);
            let outcome = world.manifest.observe(&lease, seen).await.map(|_| ());
            (outcome, TaskState::Completed, None)
        }
        1 => {
            let settlement = TaskSettlement {
                state: TaskState::Vanished,
                next_look_at: None,
                error: None,
                is_attempt: true,
                is_miss: true,
            };
            let outcome = world.manifest.settle_task(&lease, settlement).await;
            (outcome, TaskState::Vanished, None)
        }
        _ => {
            let seen = Observation {
                deadline,
                next_look_at: Some(after),
                ..world.running()
            };
            let outcome = world.manifest.observe(&lease, seen).await.map(|_| ());
            (outcome, TaskState::Watching, Some(after))
        }
    };
    agree(holds, &outcome);
    if !holds {
        return;
    }
    (*state, row.due, row.expires) = (becomes, due, None);
    if becomes != TaskState::Vanished {
        row.deadline = deadline.at;
    }
    if becomes == TaskState::Completed {
        let asset = Row {
            deadline: deadline.at,
            due: Some(world.now()),
            token: 0,
            expires: None,
        };
        model.assets.insert(id, (AssetState::Due, asset));
    }
}

async fn archive(world: &World, dice: &mut fastrand::Rng, model: &mut Model, hands: &mut Hands) {
    if hands.assets.is_empty() {
        return;
    }
    let (id, asset) = hands.assets.swap_remove(dice.usize(0..hands.assets.len()));
    let (state, row) = model.assets.get_mut(&id).unwrap();
    let holds = row.holds(&asset.lease);
    if dice.bool() {
        let again = world.after(dice.u64(1..60));
        let settlement = AssetSettlement {
            due_at: Some(again),
            ..world.try_again(0)
        };
        agree(
            holds,
            &world.manifest.settle_asset(&asset.lease, settlement).await,
        );
        if holds {
            (row.due, row.expires) = (Some(again), None);
        }
        return;
    }
    for (place, object) in asset.objects.iter().enumerate() {
        let name = world.object_name(&format!("{id}/{place}"));
        let named = world.manifest.name_object(&asset.lease, object.row, &name);
        agree(holds, &named.await);
        let proof = proof();
        let proven = world
            .manifest
            .mark_archived(&asset.lease, object.row, &proof);
        let proven = proven.await;
        agree(holds, &proven);
        if holds {
            assert_eq!(proven.unwrap(), place + 1 == asset.objects.len());
        }
    }
    if holds {
        (*state, row.due, row.expires) = (AssetState::Archived, None, None);
    }
}

async fn renew(world: &World, model: &mut Model, hands: &Hands, until: Timestamp) {
    let leases: Vec<Lease> = hands.tasks.iter().map(|(_, lease)| *lease).collect();
    let lost = world
        .manifest
        .renew(Claimable::Tasks, &leases)
        .await
        .unwrap();
    for (id, lease) in &hands.tasks {
        let (_, row) = model.tasks.get_mut(id).unwrap();
        assert_eq!(lost.contains(lease), !row.holds(lease), "{id}");
        if row.holds(lease) {
            row.expires = Some(until);
        }
    }
    let unknown = key("nobody");
    assert_eq!(world.manifest.hear(&unknown).await.unwrap(), Heard::Unknown);
}
