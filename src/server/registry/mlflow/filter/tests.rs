use super::*;

fn one(text: &str) -> (Option<String>, String, Asked) {
    let mut clauses = filter(text).unwrap();
    assert_eq!(clauses.len(), 1, "{text}");
    let clause = clauses.remove(0);
    (clause.name.kind, clause.name.key, clause.asked)
}

#[test]
fn what_people_write_is_read() {
    for (text, kind, key) in [
        ("metrics.loss < 1", "metrics", "loss"),
        ("metrics.`val loss` < 1", "metrics", "val loss"),
        ("`metrics`.\"val loss\" < 1", "metrics", "val loss"),
        ("tags.mlflow.user = 'a'", "tags", "mlflow.user"),
        (
            "tags.`mlflow.prompt.is_prompt` != 'true'",
            "tags",
            "mlflow.prompt.is_prompt",
        ),
        ("params.\"a.b\" LIKE '%'", "params", "a.b"),
    ] {
        let (found, name, _) = one(text);
        assert_eq!(
            (found.as_deref(), name.as_str()),
            (Some(kind), key),
            "{text}"
        );
    }
    assert_eq!(one("name = 'x'").0, None);
    assert_eq!(
        one("a.b >= -1.5e-3").2,
        Asked::Number(Op::GreaterOrEqual, "-1.5e-3".into())
    );
    assert_eq!(one("a.b>.5").2, Asked::Number(Op::Greater, ".5".into()));
    assert_eq!(
        one("a.b = \"it's\"").2,
        Asked::Text(Op::Equal, "it's".into())
    );
    assert_eq!(one("a.b = 'a\\'").2, Asked::Text(Op::Equal, "a\\".into()));
    assert_eq!(one("a.b = ''").2, Asked::Text(Op::Equal, String::new()));
    let list = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        one("a not in ('a', 'b',)").2,
        Asked::OneOf { list, not: true }
    );
    assert_eq!(one("a.b is not null").2, Asked::There(true));
    assert_eq!(one("a.b IS NULL").2, Asked::There(false));
    let like = Asked::Like {
        pattern: "%x".into(),
        any_case: true,
    };
    assert_eq!(one("a.b ilike '%x'").2, like);
    assert_eq!(
        filter("a.b = 1 and c.d = 'AND' AND e = 'x'").unwrap().len(),
        3
    );
    assert_eq!(filter("  ").unwrap(), []);
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_is_read_or_refused(text in "[a-z.`'\"()=!<>, 0-9eE+\\\\-]{0,40}|\\PC{0,40}") {
        for clause in filter(&text).unwrap_or_default() {
            let key = clause.name.key;
            if !key.contains('`') {
                let again = filter(&format!("tags.`{key}` IS NULL")).unwrap();
                proptest::prop_assert_eq!(&again[0].name.key, &key);
            }
        }
        if let Ok((name, _)) = order(&text) {
            proptest::prop_assert!(text.contains(&name.key));
        }
    }
}

#[test]
fn what_is_no_filter_is_refused() {
    for bad in [
        "metrics.x > 1; DROP TABLE runs",
        "1 = 1",
        "a.b = 1 OR 1 = 1",
        "a.b = 1 --",
        "a.b = 1 /* x */",
        "a.b = 'x' UNION SELECT 1",
        "a.b = 'x",
        "a.b == 1",
        "a.b <> 1",
        "a.b",
        "a.b =",
        "= 1",
        "a.b = x",
        "a.b IN ()",
        "a.b IN ('x'",
        "a.b IN (1)",
        "a.b = (SELECT 1)",
        "a.b = 1 AND",
        "a.b = 1 c.d = 2",
        "AND a.b = 1",
        "(a.b = 1)",
        "a. = 1",
        "a.b IS x",
        "a\0.b = 1",
    ] {
        assert!(filter(bad).is_err(), "{bad}");
    }
    assert!(filter(&"x".repeat(30_000)).is_err());
    assert!(filter(&vec!["a.b = 1"; 300].join(" AND ")).is_err());
}

#[test]
fn it_is_said_where_a_filter_is_wrong() {
    for (bad, at) in [
        ("a.b = 1 OR c.d = 2", 9),
        ("a.b = 'x", 7),
        ("a.b <", 6),
        ("é.b = 1 AND  ; = 2", 14),
        ("a.b IN ('x' 'y')", 13),
        ("a.b NOT 1", 9),
    ] {
        let message = filter(bad).unwrap_err().message;
        assert!(message.contains(&format!("at character {at}")), "{message}");
    }
    let read = filter("a.b = 1 AND c.d = 2").unwrap();
    assert_eq!((read[0].at, read[1].at), (1, 13));
}

#[test]
fn an_order_is_a_name_and_a_direction() {
    let name = |kind: &str, key: &str| Name {
        kind: Some(kind.into()),
        key: key.into(),
    };
    assert_eq!(
        order("metrics.loss DESC").unwrap(),
        (name("metrics", "loss"), true)
    );
    assert_eq!(
        order("metrics.`a b` asc").unwrap(),
        (name("metrics", "a b"), false)
    );
    assert_eq!(order("params.lr").unwrap(), (name("params", "lr"), false));
    for bad in [
        "",
        "a b",
        "a; DROP TABLE runs",
        "a DESC, b",
        "a DESC DESC",
        "(SELECT 1)",
        "a --",
    ] {
        assert!(order(bad).is_err(), "{bad}");
    }
}
