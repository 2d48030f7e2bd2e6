//! Statements with named parameters, as the verbs write them, and what the server wants instead.

use std::error::Error;

use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::private::BytesMut;

use super::Fault;
use super::Postgres;
use super::Time;

/// The server's own clock in unix milliseconds: one for all machines, however theirs go.
const SERVER_NOW: &str = "FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint";

/// A value for a statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Null,
    Integer(i64),
    Boolean(bool),
    Text(String),
    Bytes(Vec<u8>),
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

/// A parameter's name, with its colon, and its value.
pub(super) type Named = (&'static str, Param);

/// The parameters of a statement by name.
macro_rules! named_params {
    () => { [] };
    ($($name:literal: $value:expr),+ $(,)?) => {
        [$(($name, $crate::manifest::postgres::statement::ToParam::to_param(&$value))),+]
    };
}
pub(super) use named_params;

impl Param {
    /// The type that goes with it; nothing goes with every type.
    fn sql_type(&self) -> Type {
        match self {
            Param::Null => Type::UNKNOWN,
            Param::Integer(_) => Type::INT8,
            Param::Boolean(_) => Type::BOOL,
            Param::Text(_) => Type::TEXT,
            Param::Bytes(_) => Type::BYTEA,
            Param::Integers(_) => Type::INT8_ARRAY,
            Param::Texts(_) => Type::TEXT_ARRAY,
        }
    }
}

impl ToSql for Param {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Param::Null => Ok(IsNull::Yes),
            Param::Integer(number) => number.to_sql_checked(ty, out),
            Param::Boolean(is_true) => is_true.to_sql_checked(ty, out),
            // A text on the server has no zero bytes, and what a provider says may have some.
            Param::Text(text) if text.contains('\0') => {
                text.replace('\0', "\u{fffd}").to_sql_checked(ty, out)
            }
            Param::Text(text) => text.to_sql_checked(ty, out),
            Param::Bytes(bytes) => bytes.to_sql_checked(ty, out),
            Param::Integers(numbers) => numbers.to_sql_checked(ty, out),
            Param::Texts(texts) => texts.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // Each value checks for itself.
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What can be a parameter.
pub(super) trait ToParam {
    fn to_param(&self) -> Param;
}

impl<T: ToParam + ?Sized> ToParam for &T {
    fn to_param(&self) -> Param {
        (**self).to_param()
    }
}

impl<T: ToParam> ToParam for Option<T> {
    fn to_param(&self) -> Param {
        self.as_ref().map_or(Param::Null, ToParam::to_param)
    }
}

impl ToParam for Param {
    fn to_param(&self) -> Param {
        self.clone()
    }
}

impl ToParam for str {
    fn to_param(&self) -> Param {
        Param::Text(self.to_owned())
    }
}

impl ToParam for String {
    fn to_param(&self) -> Param {
        Param::Text(self.clone())
    }
}

impl ToParam for bool {
    fn to_param(&self) -> Param {
        Param::Boolean(*self)
    }
}

impl ToParam for i64 {
    fn to_param(&self) -> Param {
        Param::Integer(*self)
    }
}

impl ToParam for u32 {
    fn to_param(&self) -> Param {
        Param::Integer(i64::from(*self))
    }
}

impl ToParam for u8 {
    fn to_param(&self) -> Param {
        Param::Integer(i64::from(*self))
    }
}

impl ToParam for [u8] {
    fn to_param(&self) -> Param {
        Param::Bytes(self.to_vec())
    }
}

impl ToParam for Vec<u8> {
    fn to_param(&self) -> Param {
        Param::Bytes(self.clone())
    }
}

impl ToParam for Vec<i64> {
    fn to_param(&self) -> Param {
        Param::Integers(self.clone())
    }
}

impl ToParam for Vec<String> {
    fn to_param(&self) -> Param {
        Param::Texts(self.clone())
    }
}

/// A statement as the server takes it: `$1`, `$2`, and the values in that order.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) text: String,
    pub(super) values: Vec<Param>,
}

impl Bound {
    /// The values as the client takes them.
    pub(super) fn untyped(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut untyped: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(self.values.len());
        for value in &self.values {
            untyped.push(value);
        }
        untyped
    }

    /// The values with their types, for a statement that is not prepared.
    pub(super) fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let values = self.untyped().into_iter();
        values
            .zip(self.values.iter().map(Param::sql_type))
            .collect()
    }
}

impl Postgres {
    /// Puts values in the place of `:name`. Time and owner are given by the engine: `:now`, `:lease_until`, `:owner`.
    pub(super) fn bind(&self, sql: &str, params: &[Named]) -> Result<Bound, Fault> {
        let mut bound = Bound {
            text: String::with_capacity(sql.len() + 128),
            values: Vec::new(),
        };
        let mut places: Vec<&str> = Vec::new();
        for piece in pieces(sql) {
            match piece {
                Piece::Text(text) => bound.text.push_str(text),
                Piece::Name(":now") => self.push_now(&mut bound, &mut places),
                Piece::Name(":lease_until") => {
                    let lease = self.lease.as_millis_i64().to_string();
                    bound.text.push('(');
                    self.push_now(&mut bound, &mut places);
                    bound.text.push_str(" + ");
                    bound.text.push_str(&lease);
                    bound.text.push(')');
                }
                Piece::Name(name) => {
                    let value = || match name {
                        ":owner" => Some(Param::Text(self.owner.clone())),
                        _ => params
                            .iter()
                            .find(|(known, _)| *known == name)
                            .map(|(_, value)| value.clone()),
                    };
                    push(&mut bound, &mut places, name, value)
                        .ok_or_else(|| Fault::of_ours(format!("no value for {name} in {sql}")))?;
                }
            }
        }
        Ok(bound)
    }

    fn push_now(&self, bound: &mut Bound, places: &mut Vec<&str>) {
        match &self.time {
            Time::Server => bound.text.push_str(SERVER_NOW),
            Time::Handed(clock) => {
                let now = || Some(Param::Integer(clock.now().as_unix_millis()));
                push(bound, places, ":now", now).expect("there is a value");
                bound.text.push_str("::bigint");
            }
        }
    }
}

/// Writes `$n` for the name, which has one place however often it stands in the statement.
fn push<'n>(
    bound: &mut Bound,
    places: &mut Vec<&'n str>,
    name: &'n str,
    value: impl FnOnce() -> Option<Param>,
) -> Option<()> {
    let place = match places.iter().position(|known| *known == name) {
        Some(place) => place,
        None => {
            bound.values.push(value()?);
            places.push(name);
            places.len() - 1
        }
    };
    bound.text.push('$');
    bound.text.push_str(&(place + 1).to_string());
    Some(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'s> {
    Text(&'s str),
    Name(&'s str),
}

/// A statement cut where names of parameters stand. Our statements have no colons in quotes, and casts have two.
fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = sql;
    while let Some(at) = rest.find(':') {
        let (before, from) = rest.split_at(at);
        let after = from.get(1..).unwrap_or_default();
        let length = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let is_name = after.starts_with(|c: char| c.is_ascii_lowercase()) && !before.ends_with(':');
        let end = if is_name { length + 1 } else { 1 };
        if is_name {
            let (name, behind) = from.split_at(end);
            pieces.push(Piece::Text(before));
            pieces.push(Piece::Name(name));
            rest = behind;
        } else {
            // What follows a second colon is a type.
            let skip = if after.starts_with(':') { 2 } else { 1 };
            let (text, behind) = rest.split_at(at + skip);
            pieces.push(Piece::Text(text));
            rest = behind;
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, names: &[&str]) {
        let pieces = pieces(sql);
        let whole: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) | Piece::Name(text) => *text,
            })
            .collect();
        assert_eq!(whole, sql);
        let found: Vec<&str> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Text(_) => None,
                Piece::Name(name) => Some(*name),
            })
            .collect();
        assert_eq!(found, names);
    }

    #[test]
    fn names_are_told_from_casts_and_words() {
        check("", &[]);
        check("SELECT 1", &[]);
        check("-- manifest::learn\n SELECT :a", &[":a"]);
        check(":a", &[":a"]);
        check("(:task_id,:b)", &[":task_id", ":b"]);
        check("0::bigint AS id", &[]);
        check(":provider::text IS NULL", &[":provider"]);
        check("LIKE 'callback:%'", &[]);
        check("a:", &[]);
        check("a::", &[]);
        check("::b :c", &[":c"]);
    }
}
