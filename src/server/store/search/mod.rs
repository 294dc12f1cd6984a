//! Searches: conditions and orders as values, and their way into SQL. Whatever came from outside is bound; the text holds
//! only what stands in this module.

mod experiments;
mod logged_models;
mod models;
mod runs;

use sqlx::any::AnyRow;

use super::{Connection, Result};

pub use experiments::{ExperimentField, experiments};
pub use logged_models::{LoggedModelField, MeasuredOn, logged_models};
pub use models::{ModelField, VersionField, models, versions};
pub use runs::{DatasetField, RunField, runs};

/// A value that a column is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A float.
    Float(f64),
}

/// How a column is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Op {
    fn sql(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::NotEqual => "<>",
            Op::Less => "<",
            Op::LessOrEqual => "<=",
            Op::Greater => ">",
            Op::GreaterOrEqual => ">=",
        }
    }
}

/// What is asked of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// How it stands to a value.
    Is(Op, Value),
    /// `%` and `_` stand for any text and any character.
    Like {
        /// The pattern.
        pattern: String,
        /// Whether `a` is like `A`.
        any_case: bool,
    },
    /// Whether it is one of a list.
    OneOf {
        /// The list; never empty.
        list: Vec<Value>,
        /// Or none of it.
        not: bool,
    },
    /// Whether there is such a param or tag.
    There(bool),
}

/// One condition; those of a search all hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition<F> {
    /// Of what.
    pub field: F,
    /// What is asked of it.
    pub test: Test,
}

/// One order; those before it weigh more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order<F> {
    /// By what.
    pub field: F,
    /// From the highest.
    pub descending: bool,
}

/// Whether deleted ones are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Only those that are not deleted.
    Active,
    /// Only deleted ones.
    Deleted,
    /// Both.
    All,
}

impl View {
    fn sql(self, column: &str) -> String {
        match self {
            View::Active => format!("{column} IS NULL"),
            View::Deleted => format!("{column} IS NOT NULL"),
            View::All => "1 = 1".to_owned(),
        }
    }
}

/// Which piece of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// So many are passed over.
    pub offset: u64,
    /// At most so many.
    pub limit: u32,
}

/// A statement that grows, with what is bound to it.
#[derive(Debug, Default)]
struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            values: Vec::new(),
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Binds a value; gives its placeholder.
    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn text(&mut self, text: &str) -> String {
        self.bind(Value::Text(text.to_owned()))
    }

    fn int(&mut self, number: i64) -> String {
        self.bind(Value::Int(number))
    }

    /// A list of placeholders, in parentheses.
    fn list(&mut self, values: impl IntoIterator<Item = Value>) -> String {
        let all: Vec<String> = values.into_iter().map(|value| self.bind(value)).collect();
        format!("({})", all.join(","))
    }

    /// The condition that a test makes of a column.
    fn test(&mut self, column: &str, test: &Test) -> String {
        match test {
            Test::Is(op, value) => {
                let value = self.bind(value.clone());
                format!("{column} {} {value}", op.sql())
            }
            Test::Like { pattern, any_case } => {
                // A backslash is an ordinary character in MLflow's patterns.
                let pattern = self.text(&pattern.replace('\\', "\\\\"));
                if *any_case {
                    format!("LOWER({column}) LIKE LOWER({pattern}) ESCAPE '\\'")
                } else {
                    format!("{column} LIKE {pattern} ESCAPE '\\'")
                }
            }
            Test::OneOf { list, not } => {
                let not = if *not { "NOT " } else { "" };
                let list = self.list(list.iter().cloned());
                format!("{column} {not}IN {list}")
            }
            Test::There(there) => {
                let not = if *there { "NOT " } else { "" };
                format!("{column} IS {not}NULL")
            }
        }
    }

    /// The condition on named texts of `table`, whose column `owner` points to `id`.
    fn named(&mut self, id: &str, (table, owner): (&str, &str), name: &str, test: &Test) -> String {
        let name = self.text(name);
        let not = match test {
            Test::There(false) => "NOT ",
            Test::There(true) | Test::Is(..) | Test::Like { .. } | Test::OneOf { .. } => "",
        };
        let more = match test {
            Test::There(_) => String::new(),
            Test::Is(..) | Test::Like { .. } | Test::OneOf { .. } => {
                format!(" AND {}", self.test("c.value", test))
            }
        };
        format!(
            "{not}EXISTS (SELECT 1 FROM {table} c WHERE c.{owner} = {id} AND c.name = {name}{more})"
        )
    }

    /// The condition on floats of `table`: only `!=` holds of a NaN.
    fn measured(
        &mut self,
        id: &str,
        (table, owner): (&str, &str),
        name: &str,
        test: &Test,
        more: &str,
    ) -> String {
        let name = self.text(name);
        let nan = match test {
            Test::Is(Op::NotEqual, _) => "OR c.word = 'NaN'",
            Test::Is(..) | Test::Like { .. } | Test::OneOf { .. } | Test::There(_) => {
                "AND c.word <> 'NaN'"
            }
        };
        let test = self.test("c.value", test);
        format!(
            "EXISTS (SELECT 1 FROM {table} c WHERE c.{owner} = {id} AND c.name = {name} AND ({test} {nan}){more})"
        )
    }

    fn piece(&mut self, piece: Piece) {
        let limit = self.int(i64::from(piece.limit));
        let offset = self.int(i64::try_from(piece.offset).unwrap_or(i64::MAX));
        self.push(&format!(" LIMIT {limit} OFFSET {offset}"));
    }

    async fn fetch(self, db: &mut Connection) -> Result<Vec<AnyRow>> {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(self.text));
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Int(number) => query.bind(number),
                Value::Float(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(db).await?)
    }
}

/// `DESC` or `ASC`.
fn direction(descending: bool) -> &'static str {
    if descending { "DESC" } else { "ASC" }
}

/// Text sorts by its bytes, on every database.
fn by_bytes(column: &str) -> String {
    format!("{column} COLLATE \"binary\"")
}
