//! The alert rules and the dashboard that are shipped: they parse, they speak up, and they name metrics that there are.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use reelvault::telemetry::metrics::names;
use reelvault::telemetry::metrics::names::Kind;
use serde_json::Value;
use serde_json::json;

/// Where `tools/setup` puts promtool where the machine has none.
const OWN_PROMTOOL: &str = "target/tools/promtool";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The expressions of the dashboard, by panel.
fn expressions() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("config/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert_eq!(panels[0]["title"], "Will anything be lost?");
    let targets = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let of = move |target: &Value| {
            let expression = target["expr"].as_str().unwrap();
            (title.clone(), expression.replace("$job", "reelvault"))
        };
        targets.iter().map(of).collect::<Vec<_>>()
    };
    panels.iter().flat_map(targets).collect()
}

/// Runs promtool, where it is, and asserts that it finds nothing wrong.
fn promtool(arguments: &[&str]) {
    let own = root().join(OWN_PROMTOOL);
    let program = if own.exists() {
        own
    } else {
        PathBuf::from("promtool")
    };
    let Ok(output) = Command::new(program).args(arguments).output() else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn alerts_speak_up_when_they_should_and_are_quiet_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let rules = root().join("config/alerts.yml");
    let rules = rules.to_str().unwrap();
    promtool(&["check", "rules", rules]);
    let cases = include_str!("alerts.yml").replace("ALERTS]", &format!("{rules}]"));
    promtool(&["test", "rules", &write(folder.path(), "cases.yml", &cases)]);
}

#[test]
fn every_alert_leads_to_what_is_to_be_done_about_it() {
    let alerts = include_str!("../../../config/alerts.yml");
    let page = include_str!("../../../systemd/README.md");
    let (_, night) = page.split_once("\n## At night\n").unwrap();
    let night = night.split("\n## ").next().unwrap();
    let alerts: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    for alert in &alerts {
        let name = alert.lines().next().unwrap();
        assert!(night.contains(name), "{name} is not in the table");
        assert!(
            alert.contains("runbook: \"systemd/README.md#at-night\""),
            "{name}"
        );
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |(number, (_, expression)): (usize, (String, String))| json!({ "record": format!("panel:{number}"), "expr": expression });
    let rules: Vec<Value> = expressions().into_iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    promtool(&[
        "check",
        "rules",
        &write(folder.path(), "rules.yml", &rules.to_string()),
    ]);
}

#[test]
fn what_is_shipped_names_metrics_that_there_are() {
    let known: Vec<String> = names::ALL
        .iter()
        .flat_map(|name| match name.kind {
            Kind::Counter | Kind::Gauge => vec![name.in_full()],
            Kind::Histogram => vec![format!("{}_bucket", name.in_full())],
        })
        .collect();
    let alerts = include_str!("../../../config/alerts.yml");
    let mut texts: Vec<String> = expressions().into_iter().map(|(_, text)| text).collect();
    texts.extend(
        alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "))
            .map(str::to_owned),
    );
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut named = 0;
    for text in &texts {
        // What stands in quotes or braces is labels.
        let outside = text
            .split('{')
            .map(|piece| piece.split('}').next_back().unwrap());
        let words = outside.flat_map(|piece| piece.split(|c| !is_word(c)));
        for word in words.filter(|word| word.starts_with("reelvault_")) {
            assert!(known.iter().any(|name| name == word), "{word} in {text}");
            named += 1;
        }
    }
    assert!(
        named >= texts.len(),
        "{named} names in {} texts",
        texts.len()
    );
}
