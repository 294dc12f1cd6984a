//! Compares the notebooks of pull requests, once for each pipeline, and keeps the text as a row: what is reported is
//! made of rows, and waits for no git.

use std::path::{Path, PathBuf};

use mirror::MirrorError;
use protocol::CommitId;
use render::diff::{Compared, Options, Pair};
use render::markdown;
use tokio::task::JoinHandle;

use crate::loops::words;
use crate::notebooks;
use crate::store::rows::id_before;
use crate::store::{Result, Store, diffs, projects};

/// Most pipelines of one pass.
const MOST_PIPELINES: u32 = 20;
/// Most bytes of a text: a comment has no room for more.
const MOST_BYTES: usize = 40_000;
/// Most notebooks that are named because they cannot be read.
const MOST_NAMED: usize = 20;

/// Keeps texts for pull requests.
#[derive(Debug)]
pub struct Differ {
    store: Store,
    mirrors: PathBuf,
    /// No pipeline older than this is left to look at.
    oldest: String,
}

impl Differ {
    /// One that looks at everything once. `mirrors` is the folder of the mirrors.
    #[must_use]
    pub fn new(store: Store, mirrors: PathBuf) -> Self {
        Self {
            store,
            mirrors,
            oldest: String::new(),
        }
    }

    /// One pass; gives how many pipelines got their text. What cannot be compared says so in its text.
    ///
    /// # Errors
    /// The store's.
    pub async fn tick(&mut self) -> Result<usize> {
        let mut db = self.store.read().await?;
        let waiting = diffs::missing(&mut db, &self.oldest, MOST_PIPELINES).await?;
        let mut with_urls = Vec::with_capacity(waiting.len());
        for pipeline in waiting {
            let project = projects::find(&mut db, &pipeline.project).await?;
            with_urls.push((pipeline, project.map(|project| project.url)));
        }
        drop(db);
        if let Some((first, _)) = with_urls.first() {
            self.oldest = id_before(first.id.as_str());
        }
        let done = with_urls.len();
        for (pipeline, url) in with_urls {
            let text = match (url, pipeline.trigger.base) {
                (Some(url), Some(base)) => self.compare(url, base, pipeline.trigger.commit).await,
                _ => String::new(),
            };
            let mut tx = self.store.begin().await?;
            diffs::insert(&mut tx, &pipeline.id, &text).await?;
            tx.commit().await?;
        }
        Ok(done)
    }

    async fn compare(&self, url: String, base: CommitId, head: CommitId) -> String {
        let mirrors = self.mirrors.clone();
        let comparing = tokio::task::spawn_blocking(move || compared(&mirrors, &url, &base, &head));
        said(comparing).await
    }
}

/// What a comparison came to. One that breaks says so in its text: notebooks are foreign, and nothing else waits for it.
async fn said(comparing: JoinHandle<std::result::Result<String, MirrorError>>) -> String {
    let why = match comparing.await {
        Ok(Ok(text)) => return text,
        Ok(Err(error)) => error.to_string(),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => format!("a fault of Trainyard: {}", words(panic.as_ref())),
            Err(_) => "the server is stopping".to_owned(),
        },
    };
    tracing::warn!(why, "the notebooks of a pull request could not be compared");
    let why = markdown::escape(&why, 300);
    format!("The notebooks could not be compared: {why}\n")
}

/// The text for two commits; empty where no notebook differs.
fn compared(
    mirrors: &Path,
    url: &str,
    base: &CommitId,
    head: &CommitId,
) -> std::result::Result<String, MirrorError> {
    let changed = notebooks::changed(mirrors, url, base, head)?;
    let diffs: Vec<_> = changed.pairs.iter().map(Pair::diff).collect();
    let pairs = changed.pairs.iter().zip(&diffs);
    let compared: Vec<Compared<'_>> = pairs.map(Pair::compared).collect();
    let options = Options {
        max_bytes: MOST_BYTES,
        ..Options::default()
    };
    let mut text = render::diff::comment(&compared, &options);
    for path in changed.unread.iter().take(MOST_NAMED) {
        let path = markdown::code_span(path, 200);
        text.push_str(&format!("{path} cannot be read as a notebook\n\n"));
    }
    if changed.more > 0 {
        text.push_str(&format!("and {} more notebooks\n", changed.more));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn a_comparison_that_breaks_says_so_in_its_text() {
        let text = said(spawn_blocking(|| panic!("no such cell"))).await;
        assert!(text.contains("could not be compared"), "{text}");
        let both = text.contains("a fault of Trainyard") && text.contains("no such cell");
        assert!(both, "{text}");
        let text = said(spawn_blocking(|| Ok("as it was".to_owned()))).await;
        assert_eq!(text, "as it was");
    }
}
