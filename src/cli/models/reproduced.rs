//! What differs between a version and its reproduction, in tables. Pure.

use protocol::Outcome;
use protocol::registry::{Compared, Difference, Number, Reproduction};

use super::super::out;
use super::words::{clean, short_hashes, side, signed, title, value};

/// The whole text.
pub(crate) fn text(ended: &Reproduction) -> String {
    let head = format!(
        "{}, run once more by job {}",
        title(&ended.version),
        ended.job
    );
    match (&ended.compared, &ended.outcome) {
        (Some(compared), _) => format!("{head}\n{}", differences(&ended.version.label(), compared)),
        (None, Some(Outcome::Failed(failure))) => {
            format!("{head}\n\nit failed: {}", clean(&failure.message))
        }
        (None, _) => format!(
            "{head}\n\nit left nothing to compare: it is {}",
            ended.state
        ),
    }
}

fn differences(label: &str, compared: &Compared) -> String {
    let label = label.to_uppercase();
    let mut text = String::new();
    if !compared.metrics.is_empty() {
        let number = |number: Option<Number>| {
            number.map_or_else(|| "-".to_owned(), |Number(number)| value(number))
        };
        let rows = compared.metrics.iter().map(|metric| {
            let delta = metric.delta.map(signed).unwrap_or_default();
            [
                metric.name.clone(),
                number(metric.base),
                number(metric.now),
                delta,
            ]
        });
        let head = ["METRIC", &label, "NOW", "CHANGE"];
        text += &format!("\n{}\n", out::drawn(head, rows));
    }
    for (head, list) in [
        ("FILE", &compared.files),
        ("ENVIRONMENT", &compared.environment),
        ("HARDWARE", &compared.hardware),
        ("WHAT ELSE DIFFERS", &compared.other),
    ] {
        if !list.is_empty() {
            let rows = list.iter().map(row);
            text += &format!("\n{}\n", out::drawn([head, &label, "NOW"], rows));
        }
    }
    format!("{text}\n{}", verdict(compared))
}

fn row(difference: &Difference) -> [String; 3] {
    let side = |text: &Option<String>| side(text.as_deref().map(short_hashes).as_deref());
    [
        difference.what.clone(),
        side(&difference.base),
        side(&difference.now),
    ]
}

fn verdict(compared: &Compared) -> String {
    let (files, metrics) = (compared.all_files, compared.metrics.len());
    if compared.same {
        return format!("the same: files {files}, metrics {metrics}");
    }
    let changed = compared.metrics.iter().filter(|metric| !metric.is_same());
    format!(
        "it differs: files {} of {files}, metrics {} of {metrics}",
        compared.files.len(),
        changed.count()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(same: bool) -> Reproduction {
        let id = "01jd3v5n2q8k4h6s7t9w0x1y2z";
        let now = if same { 0.97 } else { 0.96 };
        let hash = |digit: &str| digit.repeat(64);
        let files = match same {
            true => json!([]),
            false => json!([{"what": "w.bin", "base": hash("a"), "now": hash("b")}]),
        };
        let hardware = json!([{"what": "gpus", "base": "NVIDIA A100", "now": "NVIDIA H100"}]);
        serde_json::from_value(json!({
            "version": {"id": id, "model": "digits", "version": 3, "status": "version", "created_at": 0},
            "job": id, "state": "succeeded", "outcome": {"outcome": "succeeded"},
            "compared": {
                "same": same, "all_files": 2, "files": files, "environment": [], "hardware": hardware, "other": [],
                "metrics": [{"name": "accuracy", "base": 0.97, "now": now, "delta": now - 0.97}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_differs_is_told_apart() {
        let text = text(&ended(false));
        for words in [
            "digits version 3, run once more by job 01jd3v5n2q8k4h6s7t9w0x1y2z",
            "0.96  -0.01",
            "aaaaaaaaaaaa  bbbbbbbbbbbb",
            "HARDWARE",
            "it differs: files 1 of 2, metrics 1 of 1",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(!text.contains("ENVIRONMENT"), "{text}");
    }

    #[test]
    fn another_gpu_alone_is_the_same_result() {
        let text = text(&ended(true));
        assert!(text.contains("NVIDIA H100"), "{text}");
        assert!(text.ends_with("the same: files 2, metrics 1"), "{text}");
    }
}
