//! Where a version says that its files lie. Only what this server keeps can be a source: a version that points elsewhere
//! could not be trusted, and one that points into a host would be an attack. Pure.

use super::check::quoted;
use super::place::{Place, SCHEME, is_model_id, is_run_id, safe};
use super::{Answer, Fault};

/// The owner and the folder of the files of a version, as they are kept; none where the location is of a kind that this
/// version does not know.
pub(in super::super) fn kept_at(location: &str) -> Option<(String, String)> {
    match location.strip_prefix("runs:/") {
        Some(rest) => {
            let (run, path) = rest.split_once('/')?;
            Some((run.to_owned(), path.to_owned()))
        }
        None => {
            let place = Place::read(location.strip_prefix(SCHEME)?).ok()?;
            Some((place.owner.id().to_owned(), place.path))
        }
    }
}

/// What a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `runs:/RUN/PATH`
    Run {
        /// The run.
        run: String,
    },
    /// `models:/m-…`
    LoggedModel(String),
    /// `models:/NAME/NUMBER`
    Version {
        /// The model's name.
        model: String,
        /// The version's number.
        number: String,
    },
    /// `models:/NAME@ALIAS`
    Alias {
        /// The model's name.
        model: String,
        /// The alias.
        alias: String,
    },
    /// `mlflow-artifacts:/…`
    Files(Place),
}

/// Reads a source.
pub(super) fn read(text: &str) -> Answer<Source> {
    let refused = || {
        Fault::invalid(format!(
            "source {} is none that a version can have here: runs:/RUN/PATH, models:/MODEL_ID, models:/NAME/VERSION, \
             models:/NAME@ALIAS, or the artifact path of a run or logged model of this server",
            quoted(text)
        ))
    };
    if let Some(rest) = text.strip_prefix("runs:/") {
        let path = safe(rest).map_err(|_| refused())?;
        return match path.split_once('/') {
            Some((run, _)) if is_run_id(run) => Ok(Source::Run {
                run: run.to_owned(),
            }),
            Some(_) | None => Err(refused()),
        };
    }
    if let Some(rest) = text.strip_prefix("models:/") {
        return model(&safe(rest).map_err(|_| refused())?).ok_or_else(refused);
    }
    match text.strip_prefix(SCHEME) {
        Some(rest) => Place::read(rest).map(Source::Files).map_err(|_| refused()),
        None => Err(refused()),
    }
}

fn model(path: &str) -> Option<Source> {
    if is_model_id(path) {
        return Some(Source::LoggedModel(path.to_owned()));
    }
    if let Some((model, number)) = path.split_once('/') {
        return Some(Source::Version {
            model: model.to_owned(),
            number: number.to_owned(),
        });
    }
    let (model, alias) = path.rsplit_once('@')?;
    Some(Source::Alias {
        model: model.to_owned(),
        alias: alias.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_location_says_whose_files_they_are() {
        let of = |owner: &str, path: &str| Some((owner.to_owned(), path.to_owned()));
        assert_eq!(kept_at(&format!("runs:/{RUN}/a/b")), of(RUN, "a/b"));
        let model = format!("m-{RUN}");
        let location = format!("mlflow-artifacts:/0/models/{model}/artifacts");
        assert_eq!(kept_at(&location), of(&model, ""));
        assert_eq!(kept_at("s3://bucket"), None);
    }

    #[test]
    fn only_what_this_server_keeps_is_a_source() {
        assert_eq!(
            read(&format!("runs:/{RUN}/model")).unwrap(),
            Source::Run { run: RUN.into() }
        );
        assert_eq!(
            read(&format!("models:/m-{RUN}")).unwrap(),
            Source::LoggedModel(format!("m-{RUN}"))
        );
        assert!(matches!(
            read("models:/digits/3"),
            Ok(Source::Version { .. })
        ));
        assert!(matches!(
            read("models:/digits@best"),
            Ok(Source::Alias { .. })
        ));
        assert!(matches!(
            read(&format!("mlflow-artifacts:/0/{RUN}/artifacts/model")),
            Ok(Source::Files(_))
        ));
        for bad in [
            "",
            "/etc",
            "/etc/passwd",
            "file:///etc",
            "file:/etc",
            "http://169.254.169.254",
            "https://x/api/2.0/mlflow-artifacts/artifacts/0",
            "s3://bucket/model",
            "mlflow-artifacts:/../..",
            "mlflow-artifacts:/0/../..",
            "mlflow-artifacts://host/0",
            "runs:/x/model",
            "models:/",
            "models:/digits",
            "dbfs:/x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for below in ["../../x", "..%2f..", "a%00", "/etc"] {
            let bad = format!("runs:/{RUN}/{below}");
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
