//! `reelvault check provider NAME --explain BODY`: what the description of a provider reads out of an answer.

use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use http::StatusCode;
use serde_json::Value;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::tasks::json;
use crate::clock::Clock;
use crate::daemon::wiring;
use crate::model::task::ProviderName;
use crate::provider;
use crate::provider::Explanation;
use crate::provider::description::Description;
use crate::units::Span;

/// The longest answer that is read: the daemon reads no longer one.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// How long links live where there is no configuration to say so: what `default.toml` says.
const TTL_UNCONFIGURED: Span = Span::from_secs(86_400);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A provider of the configuration, or a built-in kind
    name: ProviderName,
    /// A file with the answer's body, JSON; `-` is standard input
    #[arg(long, value_name = "BODY")]
    explain: PathBuf,
    /// The HTTP status that it came with
    #[arg(long, default_value = "200", value_name = "STATUS")]
    status: u16,
    /// As a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    let (description, ttl) = describe(config, &arguments.name)?;
    let status = StatusCode::from_u16(arguments.status).map_err(|_| {
        Complaint::new(
            Exit::Usage,
            format!("{} is no HTTP status", arguments.status),
        )
    })?;
    let body = read(&arguments.explain)?;
    // The daemon passes a byte order mark over as well.
    let bare = body.strip_prefix('\u{feff}').unwrap_or(&body);
    let answer: Value = serde_json::from_str(bare).map_err(|error| {
        let path = arguments.explain.display();
        Complaint::new(Exit::Usage, format!("{path} is no JSON: {error}"))
    })?;
    let now = Clock::system().now();
    let told = Explanation::new(&description, status, &answer, ttl, now);
    if arguments.json {
        say!("{}", json(&told)?)?;
    } else {
        say!("{}", told.to_string().trim_end())?;
    }
    Ok(Exit::Done)
}

/// The description of the configured provider, else the built-in one of that name, for which no configuration is needed.
fn describe(config: Option<&Path>, name: &ProviderName) -> Result<(Description, Span), Complaint> {
    let built_in = Description::built_in(name.as_str());
    let loaded = match (open::load(config), built_in.is_some()) {
        (Ok(loaded), _) => Some(loaded),
        (Err(_), true) => None,
        (Err(complaint), false) => return Err(complaint),
    };
    if let Some(config) = loaded.map(|loaded| loaded.config) {
        let settings = wiring::connect::task_apis(&config).find(|(it, _)| *it == name);
        if let Some((_, settings)) = settings {
            let mut described = provider::describe(name, settings)
                .map_err(|error| Complaint::new(Exit::Configuration, error.to_string()))?;
            described.results.ttl = settings.output_ttl.or(described.results.ttl);
            return Ok((described, config.deadline.default));
        }
    }
    let built_in = built_in.ok_or_else(|| {
        let kinds = Description::kinds().collect::<Vec<_>>().join(", ");
        Complaint::new(
            Exit::Usage,
            format!("no provider {name} is configured or built in"),
        )
        .hint(format!("built in: {kinds}"))
    })?;
    Ok((built_in.at_home(), TTL_UNCONFIGURED))
}

fn read(path: &Path) -> Result<String, Complaint> {
    let failed = |error: std::io::Error| {
        Complaint::new(
            Exit::Usage,
            format!("cannot read {}: {error}", path.display()),
        )
    };
    let mut body = String::new();
    let taken = if path == Path::new("-") {
        let mut input = std::io::stdin().lock().take(BODY_BYTES_MAX + 1);
        input.read_to_string(&mut body)
    } else {
        let mut input = std::fs::File::open(path)
            .map_err(failed)?
            .take(BODY_BYTES_MAX + 1);
        input.read_to_string(&mut body)
    };
    taken.map_err(failed)?;
    if u64::try_from(body.len()).is_ok_and(|length| length > BODY_BYTES_MAX) {
        return Err(Complaint::new(
            Exit::Usage,
            format!(
                "{} is longer than 1 MiB, which the daemon would not read either",
                path.display()
            ),
        ));
    }
    Ok(body)
}
