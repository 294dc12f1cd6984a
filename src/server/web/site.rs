//! What the routes share.

use std::ops::Deref;
use std::sync::Arc;

use super::access::Access;
use crate::state::Server;

/// The server, and who may do what with it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) access: Arc<Access>,
}

impl Deref for Site {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
