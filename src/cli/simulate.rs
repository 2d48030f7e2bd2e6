//! `reelvault simulate`: serves the simulated EvoLink API alone, so that anyone can try a client against it.

use std::net::SocketAddr;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::chance::Dice;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::clock::Clock;
use crate::simulator;
use crate::simulator::script::Script;
use crate::units::ByteSize;
use crate::units::Span;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8117")]
    listen: SocketAddr,
    /// How long result links live after completion
    #[arg(long, value_name = "TIME", default_value = "24h")]
    life: Span,
    /// How many times faster than the real provider time goes
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// How large the result files are
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    size: ByteSize,
    /// What goes wrong, such as stall=1,503=2,fail=1; a wrong word lists them all
    #[arg(long, value_name = "SPEC", default_value = "")]
    faults: Script,
}

pub(crate) async fn simulate(arguments: Arguments) -> Result<Exit, Complaint> {
    if !(arguments.speed.is_finite() && arguments.speed > 0.0) {
        return Err(Complaint::new(
            Exit::Usage,
            format!("--speed {} is no speed", arguments.speed),
        )
        .hint("1 is the pace of the real provider, 60 makes a minute a second"));
    }
    let config = simulator::Config {
        listen: arguments.listen,
        life: arguments.life,
        speed: arguments.speed,
        size: arguments.size,
        script: arguments.faults,
        ..simulator::Config::default()
    };
    let simulator = simulator::start(config, Clock::system(), Dice::new()).await;
    let simulator = simulator.map_err(|error| {
        Complaint::failed(format!(
            "{} cannot be listened on: {error}",
            arguments.listen
        ))
        .hint("--listen 127.0.0.1:0 takes any free port")
    })?;
    say!("{}", simulator.base_url())?;
    talk!("any bearer token is a key; for example:");
    talk!(
        "  curl -H 'Authorization: Bearer any' -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\": \"seedance-2.0-text-to-video\", \"prompt\": \"rain\"}}' {}/v1/videos/generations",
        simulator.base_url()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    simulator.shutdown().await;
    Ok(Exit::Done)
}
