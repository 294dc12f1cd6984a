//! The registry as the code of a job meets it on this host: calls of MLflow's API come by the driver over a socket, those
//! that write are kept until the server has them, and the others wait for it. Who brings them to the server is `service`.

mod calls;
mod desk;
mod door;
mod http;

pub(crate) use calls::{Answer, Call, Entry};
pub(crate) use desk::{Desk, MOST_WAITING};
pub(crate) use door::{Reading, Upstream, open, serve};

#[cfg(test)]
mod tests;
