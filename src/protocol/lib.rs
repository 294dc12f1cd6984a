//! The words of Trainyard as types: ids, the job and its state machine, outcomes, events, and what
//! crosses a process boundary (agent API, driver contract). It does no IO and knows no runtime.

pub mod agent_api;
pub mod api;
pub mod cell_time;
pub mod digest;
pub mod driver;
pub mod event;
pub mod fit;
pub mod gpu;
pub mod hardware;
pub mod ids;
pub mod job;
pub mod outcome;
pub mod registry;
pub mod report;
pub mod setup;
pub mod spec;
pub mod text;
pub mod trigger;
pub mod units;

pub use digest::Digest;
pub use event::{Event, EventBody, Unnumbered};
pub use ids::{AgentId, AttemptId, CommitId, JobId, PipelineId, ProjectId};
pub use outcome::{Failure, FailureKind, Outcome, Owner};
pub use spec::{JobSpec, Trust, Work};
pub use trigger::{Trigger, TriggerKind};
pub use units::{ByteSize, Span, Timestamp};
