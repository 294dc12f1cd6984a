//! What an address asks of a page, and addresses that ask for it: a view can be shared, as all of it stands there. Pure.

use axum::extract::Query;

use super::super::super::access::encode;

/// The pairs of an address, in their order.
pub(in super::super::super) type Pairs = Query<Vec<(String, String)>>;

/// Most columns that are chosen.
const MOST_COLUMNS: usize = 30;

/// A column that is chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    /// The last value of a metric.
    Metric(String),
    /// A setting.
    Param(String),
}

impl Column {
    /// As it stands in an address: `metrics.loss`.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text.split_once('.')? {
            (_, "") => None,
            ("metrics", name) => Some(Self::Metric(name.to_owned())),
            ("params", name) => Some(Self::Param(name.to_owned())),
            _ => None,
        }
    }

    pub(super) fn word(&self) -> String {
        match self {
            Self::Metric(name) => format!("metrics.{name}"),
            Self::Param(name) => format!("params.{name}"),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Metric(name) | Self::Param(name) => name,
        }
    }

    /// Its name in filters and orders, in quotes; none where no quotes hold it.
    fn in_order(&self) -> Option<String> {
        let (kind, name) = match self {
            Self::Metric(name) => ("metrics", name),
            Self::Param(name) => ("params", name),
        };
        let quote = ['`', '"'].into_iter().find(|quote| !name.contains(*quote));
        // A backslash before a double quote would keep it open.
        quote
            .filter(|quote| *quote == '`' || !name.contains('\\'))
            .map(|quote| format!("{kind}.{quote}{name}{quote}"))
    }
}

/// What the table of runs is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableAsked {
    /// In MLflow's language.
    pub(super) filter: String,
    /// In MLflow's language; empty: the newest first.
    pub(super) order: String,
    /// None that were chosen: those that most runs have.
    pub(super) columns: Vec<Column>,
    /// So many runs are passed over.
    pub(super) from: u64,
    /// Deleted runs instead.
    pub(super) deleted: bool,
}

impl TableAsked {
    pub(super) fn read(pairs: Vec<(String, String)>) -> Self {
        let mut asked = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "filter" => asked.filter = value,
                "order" => asked.order = value,
                "column" if asked.columns.len() < MOST_COLUMNS => {
                    let column = Column::read(&value).filter(|c| !asked.columns.contains(c));
                    asked.columns.extend(column);
                }
                "from" => asked.from = value.parse().unwrap_or(0),
                "deleted" => asked.deleted = value == "1",
                // Browsers and people add what they like.
                _ => {}
            }
        }
        asked
    }

    /// Its pairs, as [`TableAsked::read`] reads them.
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if !self.filter.is_empty() {
            pairs.push(("filter", self.filter.clone()));
        }
        if !self.order.is_empty() {
            pairs.push(("order", self.order.clone()));
        }
        pairs.extend(self.columns.iter().map(|column| ("column", column.word())));
        if self.from > 0 {
            pairs.push(("from", self.from.to_string()));
        }
        if self.deleted {
            pairs.push(("deleted", "1".to_owned()));
        }
        pairs
    }

    /// Its query, `?` included; empty where it asks for nothing.
    pub(super) fn query(&self) -> String {
        query(self.pairs())
    }
}

/// A query, `?` included; empty where there are no pairs.
pub(super) fn query(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let pairs = pairs.into_iter();
    let all: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", encode(&value)))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    format!("?{}", all.join("&"))
}

/// What a table is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SortBy {
    /// An attribute of runs, as filters and orders name it.
    Attribute(&'static str),
    /// A column that is chosen.
    Column(Column),
}

/// The heading of a column that can be sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sorted {
    /// Where a click leads; none where it cannot be sorted by.
    pub(super) query: Option<String>,
    /// `ascending`, `descending` or `none`, as `aria-sort` has it.
    pub(super) now: &'static str,
}

/// How a heading sorts: a second click turns it around.
pub(super) fn sorted(asked: &TableAsked, by: &SortBy) -> Sorted {
    let (name, usual) = match by {
        SortBy::Attribute("start_time") => (Some("start_time".to_owned()), true),
        SortBy::Attribute(name) => (Some((*name).to_owned()), false),
        SortBy::Column(Column::Metric(_)) => (column_order(by), true),
        SortBy::Column(Column::Param(_)) => (column_order(by), false),
    };
    let Some(name) = name else {
        return Sorted {
            query: None,
            now: "none",
        };
    };
    let term = |descending: bool| format!("{name} {}", if descending { "DESC" } else { "ASC" });
    let is_usual = asked.order.is_empty() && name == "start_time";
    let (now, next) = if asked.order == term(true) || is_usual {
        ("descending", false)
    } else if asked.order == term(false) {
        ("ascending", true)
    } else {
        ("none", usual)
    };
    let there = TableAsked {
        order: term(next),
        from: 0,
        ..asked.clone()
    };
    Sorted {
        query: Some(there.query()),
        now,
    }
}

fn column_order(by: &SortBy) -> Option<String> {
    match by {
        SortBy::Attribute(_) => None,
        SortBy::Column(column) => column.in_order(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::mlflow::run_orders;

    fn asked(columns: &[&str]) -> TableAsked {
        TableAsked {
            filter: "metrics.loss < 1 AND tags.a = 'é&'".to_owned(),
            columns: columns.iter().filter_map(|c| Column::read(c)).collect(),
            from: 100,
            deleted: true,
            ..TableAsked::default()
        }
    }

    #[test]
    fn a_view_goes_through_its_address() {
        let view = asked(&["metrics.val loss", "params.a=b&c"]);
        let address = format!("/x{}", view.query());
        let pairs = Pairs::try_from_uri(&address.parse().unwrap()).unwrap().0;
        assert_eq!(TableAsked::read(pairs), view);
        assert_eq!(TableAsked::default().query(), "");
    }

    #[test]
    fn what_is_no_column_is_passed_over() {
        for bad in ["", "loss", "metrics.", "tags.x", ".x"] {
            assert_eq!(Column::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_second_click_turns_the_order_around() {
        let by = SortBy::Column(Column::Metric("val loss".to_owned()));
        let first = sorted(&asked(&[]), &by);
        assert_eq!(first.now, "none");
        let order = "metrics.`val loss` DESC";
        let view = TableAsked {
            order: order.to_owned(),
            ..asked(&[])
        };
        let second = sorted(&view, &by);
        assert_eq!(second.now, "descending");
        assert!(second.query.unwrap().contains("ASC"));
        assert!(run_orders(&[order.to_owned()]).is_ok());
        let start = sorted(&TableAsked::default(), &SortBy::Attribute("start_time"));
        assert_eq!(start.now, "descending");
    }

    #[test]
    fn every_name_that_can_be_quoted_can_be_sorted_by() {
        for name in ["a b", "a`b", "a\"b", "a.b", "a'b", "é"] {
            let order = Column::Param(name.to_owned()).in_order().unwrap();
            let read = run_orders(&[format!("{order} DESC")]).unwrap();
            assert_eq!(
                read[0].field,
                crate::store::search::RunField::Param(name.to_owned())
            );
        }
        assert_eq!(Column::Param("a`b\"".to_owned()).in_order(), None);
    }
}
