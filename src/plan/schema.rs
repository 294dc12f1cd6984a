//! The JSON Schema of `.trainyard.yml`, from the types, for editors.

use serde_json::Value;

use crate::file::PipelineFile;

/// The schema.
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(PipelineFile).to_value()
}
