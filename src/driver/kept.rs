//! Where the content of folded outputs lies. The fold holds places in the files that the driver has written anyway, so
//! that its memory does not grow with what a job says. It knows no kernel and folds nothing itself.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use notebook::message::OutputMessage;
use notebook::nbformat::{Elsewhere, Whole};
use protocol::event::{EventBody, EventKind, OutputContent, Unnumbered};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::out::Out;

/// Where an output's content lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// A line of the events file: offset and length in bytes.
    Line(u64, usize),
    /// A blob: its name, and where in it the JSON of a display's data begins and how long that is.
    Blob(String, u64, u64),
}

impl Place {
    /// What the fold gets in place of `output`: its kind, its display id, and this place.
    pub(crate) fn stand_in(&self, output: &OutputMessage) -> OutputMessage {
        // A stream's neighbours are joined by the fold: a list of places, one a line.
        let here = || serde_json::to_string(self).unwrap_or_default() + "\n";
        let bundle = || Map::from_iter([(String::new(), Value::String(here()))]);
        let metadata = Map::new();
        match output {
            OutputMessage::Stream { name, .. } => OutputMessage::Stream {
                name: *name,
                text: here(),
            },
            OutputMessage::DisplayData { display_id, .. } => OutputMessage::DisplayData {
                data: bundle(),
                metadata,
                display_id: display_id.clone(),
            },
            OutputMessage::ExecuteResult {
                execution_count,
                display_id,
                ..
            } => OutputMessage::ExecuteResult {
                execution_count: *execution_count,
                data: bundle(),
                metadata,
                display_id: display_id.clone(),
            },
            OutputMessage::UpdateDisplayData { display_id, .. } => {
                OutputMessage::UpdateDisplayData {
                    data: bundle(),
                    metadata,
                    display_id: display_id.clone(),
                }
            }
            OutputMessage::Error { .. } => OutputMessage::Error {
                ename: String::new(),
                evalue: here(),
                traceback: Vec::new(),
            },
            OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => output.clone(),
        }
    }

    fn of(stand_in: &OutputMessage) -> io::Result<Self> {
        let text = match stand_in {
            OutputMessage::DisplayData { data, .. }
            | OutputMessage::ExecuteResult { data, .. }
            | OutputMessage::UpdateDisplayData { data, .. } => {
                data.values().next().and_then(Value::as_str)
            }
            OutputMessage::Error { evalue, .. } => Some(evalue.as_str()),
            OutputMessage::Stream { text, .. } => Some(text.as_str()),
            OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => None,
        };
        Ok(serde_json::from_str(text.unwrap_or_default())?)
    }
}

/// Reads what places stand for.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    out: &'a Out,
    events: File,
}

impl<'a> Kept<'a> {
    /// With the files of the out folder.
    ///
    /// # Errors
    /// Where the events file cannot be read.
    pub(crate) fn open(out: &'a Out) -> io::Result<Self> {
        Ok(Self {
            out,
            events: out.read_events()?,
        })
    }

    /// The output that stands in a line of the events file.
    fn line(&self, at: u64, length: usize) -> io::Result<OutputMessage> {
        let mut line = vec![0; length];
        self.events.read_exact_at(&mut line, at)?;
        match serde_json::from_slice::<Unnumbered>(&line)?.body {
            EventBody::Known(EventKind::Output {
                content: OutputContent::Inline { output },
                ..
            }) => Ok(output),
            EventBody::Known(_) | EventBody::Unknown(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the line at {at} of the events is no output"),
            )),
        }
    }

    fn blob(&self, name: &str) -> io::Result<BufReader<File>> {
        Ok(BufReader::new(self.out.read_blob(name)?))
    }
}

impl Elsewhere for Kept<'_> {
    fn text(&self, stand_in: &str, take: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for place in stand_in.lines() {
            if let Place::Line(at, length) = serde_json::from_str(place)?
                && let OutputMessage::Stream { text, .. } = self.line(at, length)?
            {
                take(&text)?;
            }
        }
        Ok(())
    }

    fn whole(&self, stand_in: &OutputMessage) -> io::Result<Whole> {
        match Place::of(stand_in)? {
            Place::Line(at, length) => Ok(Whole::Message(self.line(at, length)?)),
            Place::Blob(name, _, 0) => {
                let message = serde_json::from_reader(self.blob(&name)?)?;
                Ok(Whole::Message(message))
            }
            // What stands around the data is small.
            Place::Blob(name, from, length) => {
                let mut file = self.blob(&name)?;
                let mut around = Vec::new();
                file.by_ref().take(from).read_to_end(&mut around)?;
                around.extend(b"{}");
                file.seek(SeekFrom::Start(from + length))?;
                file.read_to_end(&mut around)?;
                let message: OutputMessage = serde_json::from_slice(&around)?;
                let (_, metadata) = message.into_display().unwrap_or_default();
                Ok(Whole::Json { metadata })
            }
        }
    }

    fn copy(&self, stand_in: &OutputMessage, out: &mut dyn Write) -> io::Result<()> {
        let Place::Blob(name, from, length) = Place::of(stand_in)? else {
            return Ok(());
        };
        let mut file = self.blob(&name)?;
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut file.take(length), out)?;
        Ok(())
    }
}

/// Writes the folded notebook to a file.
///
/// # Errors
/// Where the disk is full, or what was kept cannot be read.
pub(crate) fn write(notebook: &notebook::Notebook, out: &Out, file: &mut File) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(64 << 10, file);
    notebook::nbformat::write_from(notebook, &mut writer, &Kept::open(out)?)?;
    writer.flush()
}
