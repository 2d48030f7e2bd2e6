//! What is seen while the demo runs: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::archive::gauge::Gauge;
use crate::archive::gauge::Moving;
use crate::cli::exit::Complaint;
use crate::cli::say::talk;
use crate::manifest::Manifest;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::task::TaskId;
use crate::report::record;

/// How often the screen follows the manifest.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Follows the manifest until everything has ended: bars on a terminal, lines elsewhere.
pub(super) async fn follow(
    manifest: &Manifest,
    gauge: &Gauge,
) -> Result<Vec<TaskRecord>, Complaint> {
    let mut screen = Screen::new(std::io::stderr().is_terminal());
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let records = manifest.tasks(&TaskFilter::default(), 1000).await?;
        let is_over = !records.is_empty() && records.iter().all(has_ended);
        screen.draw(&records, &gauge.now());
        if is_over && manifest.tally().await?.orphans == 0 {
            screen.clear();
            return Ok(records);
        }
    }
}

fn has_ended(task: &TaskRecord) -> bool {
    task.state.is_final() && task.assets.iter().all(|asset| asset.state.is_final())
}

/// What is on the screen.
struct Screen {
    bars: Option<MultiProgress>,
    moving: BTreeMap<TaskId, ProgressBar>,
    said: BTreeMap<TaskId, String>,
}

impl Screen {
    fn new(is_terminal: bool) -> Self {
        Self {
            bars: is_terminal.then(MultiProgress::new),
            moving: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    fn draw(&mut self, records: &[TaskRecord], moving: &[Moving]) {
        for task in records {
            let error = task.assets.iter().find_map(|asset| asset.error.as_deref());
            let state = record::state(task);
            let news = match error.filter(|_| state != "archived") {
                Some(error) => format!("{} {state}: {error}", task.key.id),
                None => format!("{} {state}", task.key.id),
            };
            if self.said.insert(task.key.id.clone(), news.clone()).as_ref() != Some(&news) {
                self.say(&news);
            }
        }
        let Some(bars) = &self.bars else { return };
        for it in moving {
            let bar = self.moving.entry(it.task.id.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new(it.length.unwrap_or_default()));
                bar.set_style(style());
                bar.set_prefix(it.task.id.to_string());
                bar
            });
            bar.set_position(it.bytes);
        }
        self.moving.retain(|id, bar| {
            let is_moving = moving.iter().any(|it| it.task.id == *id);
            if !is_moving {
                bar.finish_and_clear();
            }
            is_moving
        });
    }

    fn say(&self, news: &str) {
        match &self.bars {
            // An error here is a terminal that went away; the work goes on.
            Some(bars) => bars.println(news).unwrap_or_default(),
            None => talk!("{news}"),
        }
    }

    fn clear(&mut self) {
        self.moving.values().for_each(ProgressBar::finish_and_clear);
        talk!("");
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes}");
    style.expect("a constant template").progress_chars("=> ")
}
