//! The engine's own statements, taken out of its source, so that what is measured bare is what the verbs run.

use std::error::Error;

use anyhow::Context as _;
use anyhow::Result;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::private::BytesMut;

use crate::ground::Kind;

/// The time as the manifest asks the server for it.
const NOW: &str = "FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint";

/// A value for a statement.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Number(i64),
    Flag(bool),
    Text(String),
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

/// Values by name, with its colon; a statement takes those that stand in it.
pub(crate) type Values = Vec<(&'static str, Value)>;

/// A row that a statement gave, if its first column is a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: i64,
    /// 0 where it has none.
    pub(crate) token: i64,
}

/// A statement and the names of its parameters in their order.
pub(crate) struct Statement {
    pub(crate) text: String,
    names: Vec<String>,
}

impl Statement {
    /// The constant of this name in the source of an engine.
    pub(crate) fn of(kind: Kind, source: &str, name: &str) -> Result<Self> {
        let begin = format!("const {name}: &str = \"");
        let (_, text) = source
            .split_once(&begin)
            .with_context(|| format!("no statement {name}"))?;
        let (text, _) = text.split_once("\";").context("a statement ends")?;
        Ok(Self::new(kind, text))
    }

    pub(crate) fn new(kind: Kind, text: &str) -> Self {
        let text = match kind {
            Kind::Sqlite => text.to_owned(),
            Kind::Postgres => text
                .replace(":lease_until", &format!("({NOW} + 60000)"))
                .replace(":now", NOW),
        };
        let (mut whole, mut names): (String, Vec<String>) = (String::new(), Vec::new());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(':') {
            let (before, from) = rest.split_at(at);
            whole.push_str(before);
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let length = from.chars().skip(1).take_while(|c| is_name(*c)).count();
            let is_cast = length == 0 || whole.ends_with(':');
            let (name, after) = from.split_at(length + 1);
            match kind {
                _ if is_cast => whole.push_str(name),
                Kind::Sqlite | Kind::Postgres => {
                    let known = names.iter().position(|known| known == name);
                    let place = known.unwrap_or(names.len());
                    if known.is_none() {
                        names.push(name.to_owned());
                    }
                    match kind {
                        Kind::Sqlite => whole.push_str(name),
                        Kind::Postgres => {
                            whole.push('$');
                            whole.push_str(&(place + 1).to_string());
                        }
                    }
                }
            }
            rest = after;
        }
        whole.push_str(rest);
        Self { text: whole, names }
    }

    /// Runs it on a file and reads every row.
    pub(crate) fn lite(&self, db: &rusqlite::Connection, values: &Values) -> Result<Vec<Found>> {
        let mut statement = db.prepare_cached(&self.text)?;
        for name in &self.names {
            let place = statement
                .parameter_index(name)?
                .context("it stands there")?;
            statement.raw_bind_parameter(place, self.value(name, values)?)?;
        }
        let columns = statement.column_count();
        let token = statement.column_index("lease_token").ok();
        let (mut rows, mut found) = (statement.raw_query(), Vec::new());
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                std::hint::black_box(row.get_ref(column)?);
            }
            let Ok(id) = row.get(0) else { continue };
            let token = token.map_or(Ok(0), |token| row.get(token))?;
            found.push(Found { id, token });
        }
        Ok(found)
    }

    /// Prepares it on a connection.
    pub(crate) async fn prepared(&self, client: &tokio_postgres::Client) -> Result<Prepared> {
        let prepared = client.prepare(&self.text).await;
        let prepared = prepared.with_context(|| self.text.clone())?;
        Ok(Prepared {
            prepared,
            names: self.names.clone(),
        })
    }

    fn value<'v>(&self, name: &str, values: &'v Values) -> Result<&'v Value> {
        value(name, values).with_context(|| self.text.clone())
    }
}

fn value<'v>(name: &str, values: &'v Values) -> Result<&'v Value> {
    let found = values.iter().find(|(known, _)| *known == name);
    Ok(&found.with_context(|| format!("no value for {name}"))?.1)
}

/// A statement that a connection has prepared.
pub(crate) struct Prepared {
    prepared: tokio_postgres::Statement,
    names: Vec<String>,
}

impl Prepared {
    /// Runs it.
    pub(crate) async fn run(
        &self,
        client: &tokio_postgres::Client,
        values: &Values,
    ) -> Result<Vec<Found>> {
        let mut taken: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(self.names.len());
        for name in &self.names {
            taken.push(value(name, values)?);
        }
        let rows = client.query(&self.prepared, &taken).await?;
        let found = |row: &tokio_postgres::Row| {
            Some(Found {
                id: row.try_get(0).ok()?,
                token: row.try_get("lease_token").unwrap_or_default(),
            })
        };
        Ok(rows.iter().filter_map(found).collect())
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::Value as Stored;
        let listed = |text: serde_json::Result<String>| match text {
            Ok(text) => Ok(Stored::Text(text)),
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
        };
        let stored = match self {
            Value::Null => Stored::Null,
            Value::Number(number) => Stored::Integer(*number),
            Value::Flag(is_set) => Stored::Integer(i64::from(*is_set)),
            Value::Text(text) => return Ok(text.as_str().into()),
            Value::Numbers(numbers) => listed(serde_json::to_string(numbers))?,
            Value::Texts(texts) => listed(serde_json::to_string(texts))?,
        };
        Ok(rusqlite::types::ToSqlOutput::Owned(stored))
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Number(number) => number.to_sql_checked(ty, out),
            Value::Flag(is_set) => is_set.to_sql_checked(ty, out),
            Value::Text(text) => text.to_sql_checked(ty, out),
            Value::Numbers(numbers) => numbers.to_sql_checked(ty, out),
            Value::Texts(texts) => texts.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}
