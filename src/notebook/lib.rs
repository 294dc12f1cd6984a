//! What a notebook means: the nbformat model, fingerprint, parameters, line map, and the fold of
//! output messages into a notebook. Pure: no IO, no runtime, light enough for the driver.

pub mod message;
