//! Verbs a second beside bare statements, and what each costs the server and whoever asks.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use reelvault::chance::Dice;
use reelvault::manifest::Manifest;
use tokio::time::Instant;

use crate::bare::Bare;
use crate::crowd::Crowd;
use crate::ground::House;
use crate::ground::Kind;
use crate::ground::own_cpu_s;
use crate::work;

/// At least so much of what the engine does bare, by the figures of the project.
const SHARE_MIN: f64 = 0.6;

/// What is measured, in this order: nothing gives back what claims take, and whole tasks claim what is left.
const ALL: [What; 5] = [
    What::Lives,
    What::Looks,
    What::LookUps,
    What::Claims,
    What::Tasks,
];

/// Tasks that are archived beforehand: some are looked up.
const FINISHED: i64 = 50_000;

#[derive(Clone, Copy, Debug)]
enum What {
    /// An asset claimed, renewed, named and archived.
    Lives,
    /// A task claimed and seen running.
    Looks,
    /// A record looked up.
    LookUps,
    /// A task claimed.
    Claims,
    /// A task learned, seen completed, and archived in two parts. It has no floor of its own.
    Tasks,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Lives => "lives (claim, renew, name, archived)",
            What::Looks => "looks (claim, observe)",
            What::LookUps => "records looked up",
            What::Claims => "claims",
            What::Tasks => "tasks (learned to archived, 2 parts)",
        }
    }

    /// How many at a time.
    fn count(self) -> usize {
        match self {
            What::Lives => 64 * work::ROOM,
            What::Looks => 40 * work::BATCH,
            What::LookUps => 4_000,
            What::Claims => 40 * work::CLAIM,
            What::Tasks => 10 * work::BATCH,
        }
    }
}

/// What one round took, for each one.
#[derive(Clone, Copy, Debug)]
struct Round {
    took_s: f64,
    server_us: f64,
    own_us: f64,
}

pub(crate) fn title() {
    println!(
        "what the manifest does a second, beside its own statements bare; CPU of the server and of this program"
    );
    println!(
        "{:<9} {:<38} {:>11} {:>9} {:>6} {:>6} {:>6} {:>10} {:>8}",
        "engine", "what", "manifest/s", "bare/s", "x", "least", "most", "server us", "own us"
    );
}

pub(crate) async fn measure(kind: Kind, rounds: usize) -> Result<()> {
    let house = House::new(kind);
    let mut ground = house.ground().await?;
    let both = |what: What| i64::try_from(2 * what.count() * (rounds + 1));
    let crowd = Crowd {
        finished: FINISHED,
        waiting: 5_000,
        due: both(What::Claims)?,
        assets_due: both(What::Lives)?,
    };
    crowd.fill(&mut ground).await?;
    let mut bare = Bare::new(&mut ground).await?;
    let dice = Dice::new();
    for what in ALL {
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        // The first round is for caches, connections and plans.
        for round in 0..=rounds {
            let numbers: Vec<i64> = (0..what.count()).map(|_| number(&dice)).collect();
            let verbs = Box::pin(verbs(&ground.manifest, what, &numbers));
            let one = timed(&house, what, verbs).await?;
            let statements = Box::pin(statements(&mut bare, what, &numbers));
            let other = timed(&house, what, statements).await?;
            if round > 0 {
                ours.push(one);
                floors.push(other);
            }
        }
        print(kind, what, &ours, &floors)?;
    }
    Ok(())
}

/// The number of a finished task.
fn number(dice: &Dice) -> i64 {
    let finished = FINISHED.unsigned_abs();
    i64::try_from(1 + dice.number() % finished).unwrap_or(1)
}

async fn verbs(manifest: &Manifest, what: What, numbers: &[i64]) -> Result<()> {
    match what {
        What::Lives => work::lives(manifest, what.count(), 0).await,
        What::Looks => work::looks(manifest, what.count()).await,
        What::LookUps => work::look_ups(manifest, numbers).await,
        What::Claims => work::claims(manifest, what.count()).await,
        What::Tasks => work::tasks(manifest, what.count()).await,
    }
}

async fn statements(bare: &mut Bare, what: What, numbers: &[i64]) -> Result<()> {
    match what {
        What::Lives => bare.lives(what.count()).await,
        What::Looks => bare.looks(what.count()).await,
        What::LookUps => bare.look_ups(numbers).await,
        What::Claims => bare.claims(what.count()).await,
        What::Tasks => Ok(()),
    }
}

async fn timed(house: &House, what: What, work: impl Future<Output = Result<()>>) -> Result<Round> {
    let count = f64::from(u32::try_from(what.count())?);
    let (server, own, begun) = (house.cpu_s()?, own_cpu_s()?, Instant::now());
    work.await.with_context(|| what.name())?;
    let took: Duration = begun.elapsed();
    let micros = |before: f64, after: f64| (after - before) * 1e6 / count;
    Ok(Round {
        took_s: took.as_secs_f64() / count,
        server_us: micros(server, house.cpu_s()?),
        own_us: micros(own, own_cpu_s()?),
    })
}

fn print(kind: Kind, what: What, ours: &[Round], floors: &[Round]) -> Result<()> {
    let of = |rounds: &[Round], one: fn(&Round) -> f64| median(rounds.iter().map(one).collect());
    let rate = Grouped(1.0 / of(ours, |round| round.took_s)?);
    print!("{:<9} {:<38} {rate:>11}", kind.name(), what.name());
    let share = if matches!(what, What::Tasks) {
        print!(" {:>9} {:>6} {:>6} {:>6}", "-", "-", "-", "-");
        f64::INFINITY
    } else {
        let shares = ours.iter().zip(floors);
        let shares: Vec<f64> = shares
            .map(|(one, other)| other.took_s / one.took_s)
            .collect();
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(0.0, f64::max);
        let share = median(shares)?;
        let floor = Grouped(1.0 / of(floors, |round| round.took_s)?);
        print!(" {floor:>9} {share:>6.2} {least:>6.2} {most:>6.2}");
        share
    };
    let (server, own) = (
        of(ours, |round| round.server_us)?,
        of(ours, |round| round.own_us)?,
    );
    let remark = if share < SHARE_MIN { "  below 0.6" } else { "" };
    println!(" {server:>10.0} {own:>8.0}{remark}");
    Ok(())
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2);
    middle.copied().context("nothing was measured")
}

/// A whole number with a comma at each thousand.
struct Grouped(f64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        let mut grouped = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}
