//! A container engine that gives GPUs which are not there. It stands before the real Docker's socket: everything passes
//! as it is, but of a request for GPUs it makes device files of the right names (of `/dev/null`), as NVIDIA's toolkit
//! would, or does one of the things that real engines do wrong.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::gpus::FakeGpus;

const DOCKER: &str = "/var/run/docker.sock";
/// Where a container's request is kept, to be told when somebody asks for it.
const KEPT: &str = "trainyard.test.device-requests";

/// What becomes of a request for GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It is fulfilled.
    Gives,
    /// It is forgotten, as Podman does.
    Forgets,
    /// It is written down, and nothing is given.
    GivesNone,
    /// It is written down, and all of the host's GPUs are given.
    GivesAll,
    /// No container is started, with GPUs or without.
    StartsNothing,
}

/// The engine's socket. Removed with the folder that it lies in.
pub(crate) struct FakeEngine {
    socket: PathBuf,
    door: Arc<Mutex<Door>>,
    manner: Arc<Mutex<Manner>>,
}

/// Who may come in, and who is in.
#[derive(Default)]
struct Door {
    /// Until then nobody.
    closed_until: Option<Instant>,
    /// Both ends of what callers have open, by a number of each caller's own.
    open: BTreeMap<u64, [UnixStream; 2]>,
    callers: u64,
}

impl FakeEngine {
    /// An engine in `folder` over these GPUs, as they are now.
    pub(crate) fn start(folder: &Path, gpus: &FakeGpus, manner: Manner) -> Self {
        let socket = folder.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let files = files(gpus);
        let door = Arc::<Mutex<Door>>::default();
        let doors = Arc::clone(&door);
        let manner = Arc::new(Mutex::new(manner));
        let manners = Arc::clone(&manner);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else {
                    return;
                };
                let (files, door) = (files.clone(), Arc::clone(&doors));
                let manner = *manners.lock().unwrap();
                // A caller that hangs up early is no news.
                thread::spawn(move || drop(enter(client, &door, &files, manner)));
            }
        });
        Self {
            socket,
            door,
            manner,
        }
    }

    /// It does otherwise from now on.
    pub(crate) fn change(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Cuts all callers off, and lets none in for a time, as an engine that is started anew.
    pub(crate) fn cut(&self, time: Duration) {
        let mut door = self.door.lock().unwrap();
        door.closed_until = Some(Instant::now() + time);
        for stream in door.open.values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// For `executors.docker_host`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// The device files of each GPU and slice, by its UUID.
fn files(gpus: &FakeGpus) -> Map<String, Value> {
    let fleet = std::fs::read(gpus.folder().join("fleet.json")).unwrap();
    let fleet: Value = serde_json::from_slice(&fleet).unwrap();
    let mut files = Map::new();
    for (index, gpu) in fleet["gpus"].as_array().unwrap().iter().enumerate() {
        let minor = gpu["minor"].as_u64().unwrap_or(index as u64);
        let node = format!("/dev/nvidia{minor}");
        let slots = gpu["mig"].as_array().cloned().unwrap_or_default();
        for (slot, slice) in slots.iter().enumerate() {
            let Some(uuid) = slice["uuid"].as_str() else {
                continue;
            };
            let cap = |n: usize| format!("/dev/nvidia-caps/nvidia-cap{}", 10 * (slot + 1) + n);
            files.insert(uuid.to_owned(), json!([node, cap(0), cap(1)]));
        }
        files.insert(gpu["uuid"].as_str().unwrap().to_owned(), json!([node]));
    }
    files
}

/// Serves a caller, where the door is open.
fn enter(
    client: UnixStream,
    door: &Mutex<Door>,
    files: &Map<String, Value>,
    manner: Manner,
) -> io::Result<()> {
    let docker = UnixStream::connect(DOCKER)?;
    let caller = {
        let mut door = door.lock().unwrap();
        if door.closed_until.is_some_and(|end| Instant::now() < end) {
            return Ok(());
        }
        door.callers += 1;
        let caller = door.callers;
        let ends = [client.try_clone()?, docker.try_clone()?];
        door.open.insert(caller, ends);
        caller
    };
    let passed = pass(client, docker, files, manner);
    door.lock().unwrap().open.remove(&caller);
    passed
}

/// One request and its answer; each connection carries one.
fn pass(
    mut client: UnixStream,
    mut docker: UnixStream,
    files: &Map<String, Value>,
    manner: Manner,
) -> io::Result<()> {
    let mut request = Head::read(&mut client)?;
    let target = request
        .line
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let path = target.split('?').next().unwrap_or_default();
    if request.line.starts_with("POST") && path.ends_with("/containers/create") {
        let mut body = vec![0; request.length()];
        client.read_exact(&mut body)?;
        let mut container: Value = serde_json::from_slice(&body)?;
        give(&mut container, files, manner);
        let body = container.to_string();
        request.set("Content-Length", &body.len().to_string());
        request.set("Connection", "close");
        docker.write_all(request.text().as_bytes())?;
        docker.write_all(body.as_bytes())?;
    } else if manner == Manner::StartsNothing
        && request.line.starts_with("POST")
        && path.ends_with("/start")
    {
        let body = json!({"message": "OCI runtime create failed: no space left on device"});
        let body = body.to_string();
        let length = body.len();
        let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close";
        return client
            .write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
    } else if request.line.starts_with("GET")
        && path.contains("/containers/")
        && path.ends_with("/json")
        && path.rsplit('/').nth(1) != Some("containers")
    {
        // Without chunks, and to the end.
        request.line = request.line.replace("HTTP/1.1", "HTTP/1.0");
        docker.write_all(request.text().as_bytes())?;
        let mut answer = Head::read(&mut docker)?;
        let mut body = Vec::new();
        docker.read_to_end(&mut body)?;
        let body = tell(&body);
        answer.line = answer.line.replace("HTTP/1.0", "HTTP/1.1");
        answer.set("Content-Length", &body.len().to_string());
        answer.set("Connection", "close");
        client.write_all(answer.text().as_bytes())?;
        return client.write_all(&body);
    } else {
        if !request.has("Upgrade") {
            request.set("Connection", "close");
        }
        docker.write_all(request.text().as_bytes())?;
    }
    splice(client, docker)
}

/// Makes of a request what this engine makes of it.
fn give(container: &mut Value, files: &Map<String, Value>, manner: Manner) {
    let requests = container["HostConfig"]["DeviceRequests"].take();
    let wanted = requests[0]["DeviceIDs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if wanted.is_empty() {
        return;
    }
    let uuids: Vec<&str> = wanted.iter().filter_map(Value::as_str).collect();
    let given: Vec<&Value> = match manner {
        Manner::Forgets | Manner::GivesNone => vec![],
        Manner::Gives | Manner::StartsNothing => {
            uuids.iter().filter_map(|uuid| files.get(*uuid)).collect()
        }
        Manner::GivesAll => files.values().collect(),
    };
    let device = |file: &Value| json!({"PathOnHost": "/dev/null", "PathInContainer": file, "CgroupPermissions": "rwm"});
    let mut names: Vec<&Value> = given
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .collect();
    names.sort_by_key(|name| name.to_string());
    names.dedup();
    container["HostConfig"]["Devices"] = names.into_iter().map(device).collect();
    if manner != Manner::Forgets {
        container["Labels"][KEPT] = requests.to_string().into();
        if let Some(env) = container["Env"].as_array_mut() {
            env.push(format!("NVIDIA_VISIBLE_DEVICES={}", uuids.join(",")).into());
        }
    }
}

/// Puts the request back into what the real engine says of a container.
fn tell(body: &[u8]) -> Vec<u8> {
    let Ok(mut container) = serde_json::from_slice::<Value>(body) else {
        return body.to_vec();
    };
    let kept = container["Config"]["Labels"][KEPT]
        .as_str()
        .map(serde_json::from_str);
    if let Some(Ok(requests)) = kept {
        container["HostConfig"]["DeviceRequests"] = requests;
    }
    container.to_string().into_bytes()
}

fn splice(client: UnixStream, docker: UnixStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, docker.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        // The caller went: whatever it waited for is not wanted any more.
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut docker, mut client) = (docker, client);
    let passed = io::copy(&mut docker, &mut client).map(drop);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
    passed
}

/// The head of a request or an answer.
struct Head {
    line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            from.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.trim_end().split("\r\n").map(str::to_owned);
        let line = lines.next().unwrap_or_default();
        let field = |line: String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Ok(Self {
            line,
            fields: lines.filter_map(field).collect(),
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let field = self
            .fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.to_owned()));
    }

    fn length(&self) -> usize {
        self.get("Content-Length")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }

    fn text(&self) -> String {
        let fields: String = self
            .fields
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        format!("{}\r\n{fields}\r\n", self.line)
    }
}
