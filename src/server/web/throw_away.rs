//! A registry for one run on somebody's own machine: MLflow's API over a database and files that go when it ends. It answers on
//! a socket that its caller guards: whoever reaches it may do everything.

use std::collections::BTreeMap;

use axum::serve::Listener;
use axum::{Extension, Router};
use protocol::Timestamp;
use protocol::registry::Lineage;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream, unix};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::guard::Names;
use super::mlflow;
use super::site::Site;
use crate::config::Config;
use crate::registry::{self, mlflow::Caller};
use crate::state::{Server, ServerError};
use crate::store::runs::{self, Run, RunStatus};
use crate::store::{StoreError, experiments};

/// The run that is there from the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// 32 hex digits.
    pub run: String,
    /// The name of its experiment.
    pub experiment: String,
    /// Its own name.
    pub name: String,
    /// Where it comes from, as far as that is known.
    pub lineage: Lineage,
}

/// Serves a registry with this run in it until it is dropped. Nothing is made before somebody asks: most runs do not, and
/// more is known of the run then.
///
/// # Errors
/// Where its folder or database cannot be made.
pub async fn serve(
    mut listener: UnixListener,
    begun: impl FnOnce() -> Begun,
) -> Result<(), ServerError> {
    let first = Listener::accept(&mut listener).await;
    let folder = TempDir::new().map_err(|source| ServerError::Folder {
        path: std::env::temp_dir(),
        source,
    })?;
    let config = Config::in_folder(folder.path().to_owned());
    let server = Server::open(config, CancellationToken::new()).await?;
    let caller = Caller {
        store: server.store.clone(),
        by: "local".to_owned(),
        home: Some(begin(&server, begun()).await?),
        job: None,
    };
    let names = Names::new(server.config.host_names());
    let access = Access::new(server.store.clone(), names, false);
    let site = Site {
        server,
        access: access.into(),
    };
    let calls: Router = mlflow::open().layer(Extension(caller)).with_state(site);
    let listener = AfterFirst {
        first: Some(first),
        listener,
    };
    axum::serve(listener, calls)
        .await
        .map_err(ServerError::Http)
}

/// Begins the run; gives the number of its experiment.
async fn begin(server: &Server, begun: Begun) -> Result<i64, StoreError> {
    let params = registry::params(&begun.lineage, &BTreeMap::new());
    let tags = registry::tags(&begun.name, &begun.lineage);
    let now = Timestamp::now();
    let mut tx = server.store.begin().await?;
    let experiment = experiments::ensure(&mut tx, &begun.experiment, now).await?;
    let run = Run {
        id: begun.run,
        experiment,
        name: begun.name,
        person: begun.lineage.by.unwrap_or_default(),
        status: RunStatus::Running,
        started_at: now,
        finished_at: None,
        deleted_at: None,
        attempt: None,
    };
    runs::insert(&mut tx, &run).await?;
    runs::add_params(&mut tx, &run.id, &Vec::from_iter(params)).await?;
    runs::set_tags(&mut tx, &run.id, &Vec::from_iter(tags)).await?;
    tx.commit().await?;
    Ok(experiment)
}

/// A listener whose first connection was accepted before.
struct AfterFirst {
    first: Option<(UnixStream, unix::SocketAddr)>,
    listener: UnixListener,
}

impl Listener for AfterFirst {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        match self.first.take() {
            Some(first) => first,
            None => Listener::accept(&mut self.listener).await,
        }
    }

    fn local_addr(&self) -> std::io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}
