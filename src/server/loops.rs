//! The server's loops, and what becomes of one that breaks: a panic, which is a fault of ours, is logged, and the loop
//! begins anew after a while. What it works on are rows: it goes on where it was, and the others did not notice.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use protocol::Span;
use tokio::time::Instant;

use crate::forge::bounded;
use crate::outgoing;
use crate::state::Server;

/// Wait before a loop that broke begins anew; it doubles each time.
const FIRST: Span = Span::secs(1);
/// The longest one.
const MOST: Span = Span::secs(60);
/// One that ran for so long is well again.
const WELL: Duration = Duration::from_secs(300);
/// Most characters of what a panic says.
const MOST_WORDS: usize = 500;

/// Runs a loop until the server stops, however often it breaks.
pub(crate) async fn keep<F, Fut>(server: Server, name: &'static str, run: F)
where
    F: Fn(Server) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut broken = 0;
    loop {
        let began = Instant::now();
        let ended = AssertUnwindSafe(run(server.clone())).catch_unwind().await;
        if server.shutdown.is_cancelled() {
            return;
        }
        if began.elapsed() >= WELL {
            broken = 0;
        }
        let wait = outgoing::wait(FIRST, MOST, broken, name);
        broken += 1;
        let why = match &ended {
            Ok(()) => "it ended by itself".to_owned(),
            Err(panic) => words(panic.as_ref()),
        };
        tracing::error!(name, why, %wait, "the loop of {name} broke, and begins anew: this is a fault of Trainyard");
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait.into()) => {}
        }
    }
}

/// What a panic says.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    bounded(text.unwrap_or("a panic without words"), MOST_WORDS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_loop_that_breaks_begins_anew_and_ends_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::in_folder(folder.path().to_owned());
        let server = Server::open(config, CancellationToken::new())
            .await
            .unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let kept = {
            let begun = Arc::clone(&begun);
            keep(server.clone(), "test", move |server| {
                let nth = begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert!(nth > 0, "the first breaks");
                    server.shutdown.cancel();
                }
            })
        };
        let within = Duration::from_secs(30);
        tokio::time::timeout(within, kept).await.expect("it ends");
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_says_why() {
        let of = |panic: Box<dyn Any + Send>| words(panic.as_ref());
        assert_eq!(of(Box::new("plain")), "plain");
        assert_eq!(of(Box::new(format!("with {}", 1))), "with 1");
        assert_eq!(of(Box::new(1)), "a panic without words");
    }
}
