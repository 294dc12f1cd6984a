//! What of a diff a person wants to see: what an execution or an editor leaves behind is left out unless it
//! is asked for. It decides what is shown, never what is kept.

use super::{CellChange, Change, Diff, Entry, OutputStep, Step};

/// What is looked at. Sources, kinds, order, kernel, tags and metadata of unknown purpose always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Outputs, too.
    pub outputs: bool,
    /// Everything that has no part in what a notebook means, too: ids, execution counts, what executions
    /// and editors write into metadata.
    pub metadata: bool,
}

/// How much differs, in numbers of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// New ones.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those that differ in what the view looks at.
    pub changed: usize,
    /// Those that passed others.
    pub moved: usize,
    /// Those with other outputs, however the view is.
    pub outputs: usize,
    /// Those that differ only in what the view does not look at.
    pub hidden: usize,
    /// Those with other ids, counts or metadata of no meaning, and the same outputs, however the view is.
    pub noise: usize,
    /// Whether the notebook's own metadata or fields differ in what the view looks at.
    pub notebook: bool,
    /// Whether they differ in what it does not look at.
    pub notebook_hidden: bool,
}

impl Summary {
    /// Whether nothing differs in what the view looks at.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added + self.removed + self.changed + self.moved == 0 && !self.notebook
    }
}

/// Keys of a cell's metadata that executions and editors write.
const OF_CELLS: [&str; 13] = [
    "ExecuteTime",
    "collapsed",
    "colab",
    "editable",
    "execution",
    "heading_collapsed",
    "hidden",
    "id",
    "jp-MarkdownHeadingCollapsed",
    "outputId",
    "papermill",
    "scrolled",
    "trainyard",
];

/// Keys of a notebook's metadata that executions and editors write.
const OF_NOTEBOOKS: [&str; 8] = [
    "colab",
    "language_info",
    "papermill",
    "toc",
    "toc-autonumbering",
    "trainyard",
    "varInspector",
    "widgets",
];

/// Paths below a key that means something otherwise.
const PATHS: [&[&str]; 5] = [
    &["kernelspec", "display_name"],
    &["jupyter", "outputs_hidden"],
    &["jupyter", "source_hidden"],
    &["vscode", "interpreter"],
    &["vscode", "languageId"],
];

impl Entry {
    /// Whether executions and editors write it, so that it says nothing to a reader.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        let first = self.path.first().map_or("", String::as_str);
        let path = self.path.iter().map(String::as_str);
        OF_CELLS.contains(&first)
            || OF_NOTEBOOKS.contains(&first)
            || PATHS
                .iter()
                .any(|known| known.iter().copied().eq(path.clone()))
    }

    /// Whether the view looks at it.
    #[must_use]
    pub fn is_seen(&self, view: View) -> bool {
        view.metadata || !self.is_noise()
    }
}

impl OutputStep<'_> {
    /// Whether it differs by more than the kernel's count, where the view does not look at that.
    #[must_use]
    pub fn is_seen(&self, view: View) -> bool {
        match self {
            OutputStep::Kept { .. } => false,
            OutputStep::Changed { only_count, .. } => view.metadata || !only_count,
            OutputStep::Added { .. } | OutputStep::Removed { .. } => true,
        }
    }
}

impl CellChange<'_> {
    /// The id before and after, where it stands in both files.
    #[must_use]
    pub fn id_change(&self) -> Option<&Change<String>> {
        self.id.as_ref().filter(|_| !self.id_made_up)
    }

    /// Whether nothing differs but ids that stand in no file.
    pub(super) fn is_of_made_up_ids(&self) -> bool {
        let rest = Self {
            id: self.id.clone(),
            id_made_up: self.id_made_up,
            ..Self::default()
        };
        self.id_made_up && *self == rest
    }

    /// Whether the outputs differ by more than counts.
    #[must_use]
    pub fn has_other_outputs(&self) -> bool {
        let view = View::default();
        self.outputs.iter().any(|step| step.is_seen(view))
    }

    /// Whether anything differs that executions and editors write, outputs aside.
    #[must_use]
    pub fn has_noise(&self) -> bool {
        self.id_change().is_some()
            || self.execution_count.is_some()
            || self.metadata.iter().chain(&self.extra).any(Entry::is_noise)
            || self
                .outputs
                .iter()
                .any(|step| matches!(step, OutputStep::Changed { only_count, .. } if *only_count))
    }

    /// Whether anything differs that the view looks at.
    #[must_use]
    pub fn is_seen(&self, view: View) -> bool {
        let entries = self.metadata.iter().chain(&self.extra);
        self.kind.is_some()
            || !self.source.is_empty()
            || entries.into_iter().any(|entry| entry.is_seen(view))
            || (view.metadata && (self.id_change().is_some() || self.execution_count.is_some()))
            || (view.outputs && self.outputs.iter().any(|step| step.is_seen(view)))
    }
}

impl Diff<'_> {
    /// How much differs.
    #[must_use]
    pub fn summary(&self, view: View) -> Summary {
        let entries = || self.metadata.iter().chain(&self.extra);
        let mut summary = Summary {
            notebook: self.kernel.is_some()
                || entries().any(|entry| entry.is_seen(view))
                || (view.metadata && self.minor.is_some()),
            ..Summary::default()
        };
        let differs = self.minor.is_some() || entries().next().is_some();
        summary.notebook_hidden = differs && !summary.notebook;
        for step in &self.cells {
            match step {
                Step::Added { .. } => summary.added += 1,
                Step::Removed { .. } => summary.removed += 1,
                Step::Kept(kept) => {
                    summary.moved += usize::from(kept.moved);
                    let seen = kept.change.iter();
                    for change in seen.filter(|change| !change.is_of_made_up_ids()) {
                        let outputs = change.has_other_outputs();
                        summary.outputs += usize::from(outputs);
                        summary.noise += usize::from(!outputs && change.has_noise());
                        let seen = change.is_seen(view);
                        summary.changed += usize::from(seen);
                        summary.hidden += usize::from(!seen);
                    }
                }
            }
        }
        summary
    }
}
