//! The other half of a hashed floor: a bare SHA-256 pass over the films, in memory, with the daemon's own digester.

use std::hint::black_box;

use reelvault::model::digest::Sha256Digester;

use crate::content::Film;

/// What to hash.
#[derive(Debug, clap::Args)]
pub(crate) struct Work {
    /// How many films.
    #[arg(long)]
    films: u64,
    /// How long each is.
    #[arg(long)]
    bytes: u64,
}

pub(crate) fn run(work: &Work) {
    let bytes = work.bytes;
    for film in (0..work.films).map(|number| Film { number, bytes }) {
        let mut digester = Sha256Digester::new();
        for frame in film.frames(0..bytes) {
            digester.update(&frame);
        }
        black_box(digester.value());
    }
}
