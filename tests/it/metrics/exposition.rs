//! A strict reader of what `/metrics` answers: `OpenMetrics` text, every line accounted for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The names of one series and their values.
pub(crate) type Labels = BTreeMap<String, String>;

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Exposition {
    /// By the full name of the sample.
    series: BTreeMap<String, Vec<(Labels, f64)>>,
    /// The kind of each metric, by its name.
    pub(crate) kinds: BTreeMap<String, String>,
}

impl Exposition {
    /// Reads `text`, and panics at the first thing that the format does not allow.
    pub(crate) fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let (mut series, mut kinds) = (BTreeMap::<String, Vec<_>>::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.len() > 10 && help.ends_with('.'), "{line}");
                assert!(helped.insert(name.to_owned()), "told twice: {line}");
                name.clone_into(&mut current);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current, "a kind without its help");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (name, labels, value) = sample(line);
                let suffixes: &[&str] = match kinds[&current].as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    _ => &["_bucket", "_sum", "_count"],
                };
                let suffix = name.strip_prefix(current.as_str()).unwrap();
                assert!(suffixes.contains(&suffix), "{line}");
                let rows = series.entry(name).or_default();
                assert!(!rows.iter().any(|(other, _)| *other == labels), "{line}");
                rows.push((labels, value));
            }
        }
        let read = Self { series, kinds };
        read.check_histograms();
        read
    }

    /// What the one series with these labels says.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        found.unwrap_or_else(|| panic!("no {name}{labels:?} in {self:#?}"))
    }

    /// Asserts what the one series with these labels says.
    #[track_caller]
    pub(crate) fn assert(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let found = self.value(name, labels);
        assert!(
            found.total_cmp(&expected).is_eq(),
            "{name}{labels:?}: {found}"
        );
    }

    /// What the one series with these labels says, if it is there.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let rows = self.series.get(name)?;
        let row = rows.iter().find(|(labels, _)| *labels == wanted)?;
        Some(row.1)
    }

    /// All series of a name added up.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let rows = self.series.get(name).into_iter().flatten();
        rows.map(|(_, value)| value).sum()
    }

    /// Every name and value of a label that occurs.
    pub(crate) fn labels(&self) -> BTreeSet<(String, String)> {
        let rows = self.series.values().flatten();
        rows.flat_map(|(labels, _)| labels.clone()).collect()
    }

    /// How many series there are.
    pub(crate) fn count(&self) -> usize {
        self.series.values().map(Vec::len).sum()
    }

    /// Buckets only grow, end at infinity, and the last of them is the count.
    fn check_histograms(&self) {
        let histograms = self.kinds.iter().filter(|(_, kind)| *kind == "histogram");
        for (name, _) in histograms {
            let mut last: BTreeMap<Labels, (f64, f64)> = BTreeMap::new();
            for (labels, count) in &self.series[&format!("{name}_bucket")] {
                let mut labels = labels.clone();
                let bound = number(&labels.remove("le").unwrap());
                if let Some((before, counted)) = last.insert(labels, (bound, *count)) {
                    assert!(before < bound && counted <= *count, "{name}");
                }
            }
            for (labels, count) in &self.series[&format!("{name}_count")] {
                assert_eq!(last[labels], (f64::INFINITY, *count), "{name}");
            }
        }
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    assert!(!name.is_empty() && name.chars().all(is_name), "{line}");
    (name.to_owned(), read_labels(labels), number(value))
}

fn read_labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => match letters.next().unwrap().1 {
                    'n' => value.push('\n'),
                    escaped @ ('"' | '\\') => value.push(escaped),
                    other => panic!("\\{other} in {text}"),
                },
                (_, letter) => value.push(letter),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None, "{text}");
        text = &rest[end + 1..];
        if !text.is_empty() {
            text = text.strip_prefix(',').unwrap();
        }
    }
    labels
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" | "inf" => f64::INFINITY,
        "-Inf" | "-inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => text.parse().unwrap(),
    }
}
