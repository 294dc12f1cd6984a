//! The engine and an image of it for tests of this crate's modules.

use super::{Engine, Image};
use crate::config::Config;

pub(crate) const IMAGE: &str = "trainyard/notebook";

/// The engine and the image, where both are here. `scripts/test` sets `TRAINYARD_TEST_DOCKER=required`: then they must be.
pub(crate) async fn engine(config: &Config) -> Option<(Engine, Image)> {
    let found = async {
        let engine = Engine::connect(config).await?;
        let image = engine.image(IMAGE, None).await?;
        Ok::<_, super::EngineError>((engine, image))
    };
    let found = found.await;
    let required = std::env::var_os("TRAINYARD_TEST_DOCKER").is_some_and(|word| word == "required");
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            assert!(!required, "{error}; run scripts/setup");
            eprintln!("NOT RUN: {error}");
            None
        }
    }
}
