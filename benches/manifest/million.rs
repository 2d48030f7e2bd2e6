//! What the verbs on the hot paths take with a million tasks in the manifest, beside one that has few.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::manifest::Manifest;
use reelvault::manifest::row::AssetSettlement;
use reelvault::manifest::row::Claimable;
use reelvault::manifest::row::NewTask;
use reelvault::manifest::row::TaskFilter;
use reelvault::manifest::row::TaskSettlement;
use reelvault::manifest::row::event::EventFilter;
use reelvault::model::asset::AssetState;
use reelvault::model::deadline::Danger;
use reelvault::model::task::TaskState;
use reelvault::units::Span;
use tokio::time::Instant;

use crate::crowd::Crowd;
use crate::ground::Ground;
use crate::ground::House;
use crate::ground::Kind;
use crate::speed::median;
use crate::work;

/// By the figures of the project.
const FACTOR_MAX: f64 = 1.5;

/// How often each path is walked in each of the two manifests, in turn.
const TURNS: usize = 60;

/// Turns before that.
const WARM_UP: usize = 10;

/// What both manifests have in work.
const AT_WORK: Crowd = Crowd {
    finished: 0,
    waiting: 5_000,
    due: 2_000,
    assets_due: 2_000,
};

/// What finished in the one that has few, so that there is something to look up.
const FEW: i64 = 1_000;

/// Tasks that finished lately, which are most of those that somebody asks for.
const RECENT: i64 = 10_000;

/// What each path took.
type Times = BTreeMap<&'static str, Vec<f64>>;

pub(crate) fn title(tasks: i64) {
    println!(
        "each path with {tasks} tasks beside one with {}: medians over {TURNS} turns",
        FEW + AT_WORK.waiting + AT_WORK.due + AT_WORK.assets_due
    );
    println!(
        "{:<9} {:<34} {:>9} {:>9} {:>6}",
        "engine", "path", "few ms", "many ms", "x"
    );
}

pub(crate) async fn measure(kind: Kind, tasks: i64) -> Result<()> {
    let house = House::new(kind);
    let (mut few, mut many) = (house.ground().await?, house.ground().await?);
    let at_work = AT_WORK.waiting + AT_WORK.due + AT_WORK.assets_due;
    let finished = (tasks - at_work).max(FEW);
    Crowd {
        finished: FEW,
        ..AT_WORK
    }
    .fill(&mut few)
    .await?;
    Crowd {
        finished,
        ..AT_WORK
    }
    .fill(&mut many)
    .await?;
    let mut both = [
        (Walk::new(&few, FEW), Times::new()),
        (Walk::new(&many, finished), Times::new()),
    ];
    for turn in 0..WARM_UP + TURNS {
        for (walk, times) in &mut both {
            walk.turn(turn).await?;
            let taken = walk.taken.drain(..);
            if turn >= WARM_UP {
                taken.for_each(|(path, took)| times.entry(path).or_default().push(took));
            }
        }
    }
    let [(_, few), (_, many)] = both;
    for (path, times) in few {
        let few = median(times)?;
        let many = median(many.get(path).cloned().unwrap_or_default())?;
        let factor = many / few;
        println!(
            "{:<9} {path:<34} {:>9.3} {:>9.3} {factor:>6.2}{}",
            kind.name(),
            few * 1000.0,
            many * 1000.0,
            if factor > FACTOR_MAX {
                "  above 1.5"
            } else {
                ""
            },
        );
    }
    Ok(())
}

/// A walk along all paths of one manifest.
struct Walk<'g> {
    manifest: &'g Manifest,
    /// Finished tasks, with numbers from 1 on.
    finished: i64,
    dice: Dice,
    last_event: i64,
    taken: Vec<(&'static str, f64)>,
}

impl<'g> Walk<'g> {
    fn new(ground: &'g Ground, finished: i64) -> Self {
        Self {
            manifest: &ground.manifest,
            finished,
            dice: Dice::new(),
            // Those of what finished were read long ago.
            last_event: 3 * finished,
            taken: Vec::new(),
        }
    }

    async fn timed<T, E>(
        &mut self,
        path: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T>
    where
        E: Into<anyhow::Error>,
    {
        let begun = Instant::now();
        let done = work.await.map_err(Into::into).context(path)?;
        let took: Duration = begun.elapsed();
        self.taken.push((path, took.as_secs_f64()));
        Ok(done)
    }

    async fn turn(&mut self, turn: usize) -> Result<()> {
        self.watch(turn).await?;
        self.archive().await?;
        self.read().await
    }

    /// New tasks and looks. What is claimed is due again afterwards.
    async fn watch(&mut self, turn: usize) -> Result<()> {
        let manifest = self.manifest;
        let new = (0..10).map(|number| {
            let id = format!("task-new-{turn}-{number}");
            work::new_task(&id, Span::from_secs(3600))
        });
        let new: Vec<NewTask> = new.collect::<Result<_>>()?;
        self.timed("learn, 10 that are new", manifest.learn(new.clone()))
            .await?;
        let key = new.first().map(|task| task.key.clone());
        self.timed("learn, 10 that are known", manifest.learn(new))
            .await?;
        let key = key.context("ten are some")?;
        self.timed("hear", manifest.hear(&key)).await?;

        let claimed = self
            .timed("claim_tasks, 50", manifest.claim_tasks(50, &[]))
            .await?;
        let leases: Vec<_> = claimed.iter().map(|task| task.lease).collect();
        let renewed = manifest.renew(Claimable::Tasks, &leases);
        self.timed("renew, 50 tasks", renewed).await?;
        let (first, rest) = claimed.split_first().context("tasks are due")?;
        self.timed("observe_all, 49", work::observe(manifest, rest))
            .await?;
        let settlement = TaskSettlement {
            state: TaskState::Watching,
            next_look_at: Some(Clock::system().now()),
            error: Some("the provider answered 500".to_owned()),
            is_attempt: true,
            is_miss: false,
        };
        let settled = manifest.settle_task(&first.lease, settlement);
        self.timed("settle_task", settled).await?;
        self.timed("next_due, tasks", manifest.next_due(Claimable::Tasks))
            .await?;
        Ok(())
    }

    /// One asset is archived, the others are due again afterwards.
    async fn archive(&mut self) -> Result<()> {
        let manifest = self.manifest;
        let claimed = self
            .timed("claim_assets, 16", manifest.claim_assets(16))
            .await?;
        let leases: Vec<_> = claimed.iter().map(|asset| asset.lease).collect();
        let renewed = manifest.renew(Claimable::Assets, &leases);
        self.timed("renew, 16 assets", renewed).await?;
        let (first, rest) = claimed.split_first().context("assets are due")?;
        let archived = work::archive(manifest, first, 0);
        self.timed("name_object, mark_archived", archived).await?;
        for asset in rest {
            let settlement = AssetSettlement {
                state: AssetState::Due,
                due_at: Some(Clock::system().now()),
                error: Some("the origin answered 503".to_owned()),
                is_attempt: true,
                has_gained: false,
                wants_fresh_link: false,
            };
            let settled = manifest.settle_asset(&asset.lease, settlement);
            self.timed("settle_asset", settled).await?;
        }
        let urgent = Clock::system().now().plus(Span::from_secs(7200));
        let claimed = manifest.claim_urgent_assets(16, urgent);
        self.timed("claim_urgent_assets, none", claimed).await?;
        self.timed("next_due, assets", manifest.next_due(Claimable::Assets))
            .await?;
        let orphans = manifest.claim_orphans(4);
        self.timed("claim_orphans, none", orphans).await?;
        self.timed("raise_alarms, none", manifest.raise_alarms(danger(2)))
            .await?;
        Ok(())
    }

    /// What people and programs ask for.
    async fn read(&mut self) -> Result<()> {
        let manifest = self.manifest;
        let number = |among: i64| {
            let back = self.dice.number() % among.unsigned_abs();
            i64::try_from(back).map(|back| self.finished - back)
        };
        let (number, old) = (number(RECENT.min(self.finished))?, number(self.finished)?);
        let recent = work::look_up(manifest, number);
        self.timed("a record of the last hours", recent).await?;
        let old = work::look_up(manifest, old);
        self.timed("a record of any age (caches)", old).await?;
        self.timed("at_risk, none", manifest.at_risk(danger(2), 100))
            .await?;
        self.timed(
            "at_risk, 100 of thousands",
            manifest.at_risk(danger(72), 100),
        )
        .await?;
        let filters = [
            ("tasks, the first 100", TaskFilter::default()),
            (
                "tasks, 100 that are watched",
                TaskFilter {
                    state: Some(TaskState::Watching),
                    ..TaskFilter::default()
                },
            ),
            (
                "tasks, 100 with an asset due",
                TaskFilter {
                    asset_state: Some(AssetState::Due),
                    ..TaskFilter::default()
                },
            ),
            (
                "tasks, 100 that are at risk",
                TaskFilter {
                    at_risk: Some(danger(72)),
                    ..TaskFilter::default()
                },
            ),
            (
                "tasks, 100 after one",
                TaskFilter {
                    after_row: Some(number),
                    ..TaskFilter::default()
                },
            ),
        ];
        for (path, filter) in filters {
            self.timed(path, manifest.tasks(&filter, 100)).await?;
        }
        let newest = EventFilter {
            after: Some(self.last_event),
            ..EventFilter::default()
        };
        let events = self.timed("events, new ones", manifest.events(&newest, 1000));
        if let Some(last) = events.await?.last() {
            self.last_event = last.event.number;
        }
        self.timed("tally", manifest.tally()).await?;
        Ok(())
    }
}

/// The danger of what dies in less than so many hours, judged when they are over.
fn danger(hours: u64) -> Danger {
    let then = Clock::system().now().plus(Span::from_secs(hours * 3_600));
    Danger::within(Span::ZERO, then)
}
