//! Running SQL: parameters in, rows out.
//!
//! Statements are prepared once per connection and kept.

use std::cell::RefCell;
use std::ops::Deref;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::error::{Cause, StoreError};

/// A parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

/// The parameters of a statement: `params![name, 5, &bytes]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::Value::from($value)),*] as &[$crate::Value<'_>] };
}

macro_rules! from_integer {
    ($($number:ty)+) => { $(
        impl From<$number> for Value<'_> {
            fn from(number: $number) -> Self {
                Self::Integer(number.into())
            }
        }
    )+ };
}
from_integer!(bool i8 i16 i32 i64 u8 u16 u32);

/// Kept as the signed number with the same bits, and read back as it was.  Above `i64::MAX` (no
/// revision or time gets there) SQLite's own comparisons see a negative number.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Integer(number.cast_signed())
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Real(number) => ValueRef::Real(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// One row of a result.
#[derive(Debug)]
pub struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    /// The value of a column, counted from 0.
    pub fn get<T: FromColumn>(&self, column: usize) -> Result<T, StoreError> {
        T::from_column(self, column)
    }

    /// The bytes of a text or blob column, without a copy.
    pub fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        let wanted = |source: rusqlite::Error| StoreError::Column {
            column,
            wanted: "bytes",
            source: Cause::new(source),
        };
        let value = self.0.get_ref(column).map_err(wanted)?;
        value.as_bytes().map_err(|err| wanted(err.into()))
    }
}

/// What a column can be read as.
pub trait FromColumn: Sized {
    /// Reads column `column` of `row`.
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self, StoreError>;
}

macro_rules! from_column {
    ($($wanted:ty)+) => { $(
        impl FromColumn for $wanted {
            fn from_column(row: &Row<'_>, column: usize) -> Result<Self, StoreError> {
                row.0.get(column).map_err(|err| StoreError::Column {
                    column,
                    wanted: stringify!($wanted),
                    source: Cause::new(err),
                })
            }
        }
        impl FromColumn for Option<$wanted> {
            fn from_column(row: &Row<'_>, column: usize) -> Result<Self, StoreError> {
                row.0.get(column).map_err(|err| StoreError::Column {
                    column,
                    wanted: stringify!($wanted),
                    source: Cause::new(err),
                })
            }
        }
    )+ };
}
from_column!(bool i64 u32 u16 u8 f64 String Vec<u8>);

impl FromColumn for u64 {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self, StoreError> {
        i64::from_column(row, column).map(i64::cast_unsigned)
    }
}

impl FromColumn for Option<u64> {
    fn from_column(row: &Row<'_>, column: usize) -> Result<Self, StoreError> {
        Option::<i64>::from_column(row, column).map(|number| number.map(i64::cast_unsigned))
    }
}

/// A database at one moment: everything read through it fits together.
#[derive(Debug)]
pub struct View<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) path: &'a Path,
}

impl View<'_> {
    /// Every row of a query.
    pub fn query_rows<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.query_each(sql, params, |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// The first row of a query, if there is one.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let fault = |err| StoreError::from_sqlite(self.path, sql, err);
        let mut statement = self.conn.prepare_cached(sql).map_err(fault)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(fault)?;
        rows.next().map_err(fault)?.map(|row| read(&Row(row))).transpose()
    }

    /// Calls `read` for each row of a query, without holding more than one.
    pub fn query_each(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fault = |err| StoreError::from_sqlite(self.path, sql, err);
        let mut statement = self.conn.prepare_cached(sql).map_err(fault)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            read(&Row(row))?;
        }
        Ok(())
    }
}

/// A transaction: a [`View`] that can also change.  Its changes are kept if its closure returns
/// `Ok`, and undone otherwise.
#[derive(Debug)]
pub struct Tx<'a> {
    pub(crate) view: View<'a>,
    /// The first fault of the disk met; it may have cost the whole transaction.
    pub(crate) disk_fault: RefCell<Option<StoreError>>,
}

impl<'a> Deref for Tx<'a> {
    type Target = View<'a>;
    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl Tx<'_> {
    /// Runs a statement; returns how many rows it changed.
    pub fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, StoreError> {
        let run = || self.conn.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params));
        run().map_err(|err| {
            let fault = StoreError::from_sqlite(self.path, sql, err);
            if fault.is_of_the_disk() {
                self.disk_fault.borrow_mut().get_or_insert_with(|| fault.clone());
            }
            fault
        })
    }

    /// The row id of the last row inserted through this database's writer.
    pub fn last_row_id(&self) -> i64 {
        self.conn.last_insert_rowid()
    }
}
