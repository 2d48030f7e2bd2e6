//! The merged configuration as a tree that mistakes can be taken out of, so that all of them are found at once.

use std::collections::BTreeMap;
use std::fmt;

/// A way down the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<Step>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A value of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    /// Each element with its index as written, which stays when another element is taken out.
    List(Vec<(usize, Node)>),
    Table(BTreeMap<String, Node>),
    /// Stands for a value that is missing: nothing of whatever kind is wanted.
    Blank,
}

impl Path {
    /// The path of these keys.
    pub(super) fn keys(keys: &[&str]) -> Self {
        Self(
            keys.iter()
                .map(|key| Step::Key((*key).to_owned()))
                .collect(),
        )
    }

    /// This path and one more key.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// This path and one more index.
    pub(super) fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// The path without its last step; `None` at the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// The last key.
    pub(super) fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(Step::as_key)
    }

    /// Whether one of the two paths leads through the other's end.
    pub(super) fn is_in_line_with(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(mine, theirs)| mine == theirs)
    }

    /// Whether this path leads through the end of `other`.
    pub(super) fn is_under(&self, other: &Self) -> bool {
        self.0.len() >= other.0.len() && self.is_in_line_with(other)
    }
}

impl Step {
    /// The key, if it is one.
    pub(super) fn as_key(&self) -> Option<&str> {
        match self {
            Step::Key(key) => Some(key),
            Step::Index(_) => None,
        }
    }
}

/// Whether a key names where a secret is.
fn is_secret_place(key: &str) -> bool {
    matches!(key, "credential" | "file" | "env")
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) => {
                    let dot = if number == 0 { "" } else { "." };
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                    if !key.is_empty() && key.chars().all(is_plain) {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{key:?}")?;
                    }
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// Reads one layer. The crate's own merging is not used: it takes keys for paths with indices.
    pub(super) fn read(text: &str) -> Result<Self, config::ConfigError> {
        use config::Source as _;
        let layer = config::File::from_str(text, config::FileFormat::Toml).collect()?;
        Ok(Self::from_table(layer))
    }

    /// What stands in a file; nothing for what TOML does not have.
    fn from_value(value: config::Value) -> Option<Self> {
        use config::ValueKind;
        Some(match value.kind {
            ValueKind::Nil => return None,
            ValueKind::Boolean(it) => Node::Bool(it),
            ValueKind::I64(it) => Node::Int(it),
            ValueKind::I128(it) => Node::Int(i64::try_from(it).ok()?),
            ValueKind::U64(it) => Node::Int(i64::try_from(it).ok()?),
            ValueKind::U128(it) => Node::Int(i64::try_from(it).ok()?),
            ValueKind::Float(it) => Node::Float(it),
            ValueKind::String(it) => Node::String(it),
            ValueKind::Array(it) => {
                let nodes = it.into_iter().filter_map(Self::from_value);
                Node::List(nodes.enumerate().collect())
            }
            ValueKind::Table(it) => Self::from_table(it),
        })
    }

    fn from_table(table: impl IntoIterator<Item = (String, config::Value)>) -> Self {
        let nodes = table.into_iter();
        let nodes = nodes.filter_map(|(key, it)| Some((key, Self::from_value(it)?)));
        Node::Table(nodes.collect())
    }

    /// Lays the next layer over this one. Another place of a secret takes the place of the one below, since a secret has
    /// one.
    pub(super) fn overlay(&mut self, above: Node) {
        self.merge(above, true);
    }

    /// Puts `node` at `path`, which has only keys, in the same layer. What is on the way and no table gives way to one.
    pub(super) fn set(&mut self, path: &Path, node: Node) {
        let tables = path.0.iter().rev().filter_map(Step::as_key);
        let tables = tables.fold(node, |below, key| {
            Node::Table(BTreeMap::from([(key.to_owned(), below)]))
        });
        self.merge(tables, false);
    }

    fn merge(&mut self, above: Node, is_next_layer: bool) {
        match (self, above) {
            (Node::Table(table), Node::Table(above)) => {
                if is_next_layer && above.keys().any(|key| is_secret_place(key)) {
                    table.retain(|key, _| !is_secret_place(key));
                }
                for (key, node) in above {
                    match table.get_mut(&key) {
                        Some(below) => below.merge(node, is_next_layer),
                        None => drop(table.insert(key, node)),
                    }
                }
            }
            (below, above) => *below = above,
        }
    }

    /// What stands at `path`.
    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        let mut node = self;
        for step in &path.0 {
            node = match (node, step) {
                (Node::Table(table), Step::Key(key)) => table.get(key)?,
                (Node::List(list), Step::Index(index)) => {
                    &list.iter().find(|(it, _)| it == index)?.1
                }
                _ => return None,
            };
        }
        Some(node)
    }

    fn get_mut(&mut self, path: &Path) -> Option<&mut Node> {
        let mut node = self;
        for step in &path.0 {
            node = match (node, step) {
                (Node::Table(table), Step::Key(key)) => table.get_mut(key)?,
                (Node::List(list), Step::Index(index)) => {
                    &mut list.iter_mut().find(|(it, _)| it == index)?.1
                }
                _ => return None,
            };
        }
        Some(node)
    }

    /// Takes the end of `path` out of the tree and puts `instead` there, if given. Whether that changed anything.
    pub(super) fn replace(&mut self, path: &Path, instead: Option<Node>) -> bool {
        let (Some(parent), Some(end)) = (path.parent(), path.0.last()) else {
            return false;
        };
        match (self.get_mut(&parent), end) {
            (Some(Node::Table(table)), Step::Key(key)) => {
                let was = table.remove(key);
                let is_changed = was.is_some() || instead.is_some();
                if let Some(node) = instead {
                    table.insert(key.clone(), node);
                }
                is_changed
            }
            (Some(Node::List(list)), Step::Index(index)) => {
                let before = list.len();
                list.retain(|(it, _)| it != index);
                before != list.len()
            }
            _ => false,
        }
    }

    /// The path that a reader took which counted only the elements that are left, with indices as written. Ends where
    /// the tree does.
    pub(super) fn as_written(&self, counted: &serde_path_to_error::Path) -> Path {
        use serde_path_to_error::Segment;
        let mut path = Path::default();
        let mut node = Some(self);
        for segment in counted {
            match (segment, node) {
                (Segment::Seq { index }, Some(Node::List(list))) => {
                    let Some((written, below)) = list.get(*index) else {
                        break;
                    };
                    path = path.index(*written);
                    node = Some(below);
                }
                (
                    Segment::Map { key } | Segment::Enum { variant: key },
                    Some(Node::Table(table)),
                ) => {
                    path = path.key(key);
                    node = table.get(key);
                }
                _ => break,
            }
        }
        path
    }

    /// The keys of the table at `path`.
    pub(super) fn keys_at(&self, path: &Path) -> Vec<&str> {
        match self.get(path) {
            Some(Node::Table(table)) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}
