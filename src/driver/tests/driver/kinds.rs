//! What cells do in real notebooks: magics, shells, loops, displays, widgets. Many in one notebook: a kernel takes its time.

use notebook::message::OutputMessage;
use protocol::event::{CellStatus, LogStream};
use protocol::outcome::FailureKind;
use serde_json::{Value, json};

use crate::support::{Told, World};

/// The text of a cell's outputs in the executed notebook.
fn said(executed: &Value, cell: usize) -> String {
    let outputs = executed["cells"][cell]["outputs"].as_array().unwrap();
    let lines = |value: &Value| -> String {
        let lines = value.as_array().into_iter().flatten();
        lines.filter_map(Value::as_str).collect()
    };
    outputs
        .iter()
        .map(|output| lines(&output["text"]) + &lines(&output["data"]["text/plain"]))
        .collect()
}

#[test]
fn magics_shells_and_loops_work() {
    let told = World::notebook(&[
        ("%%bash\necho from bash\ncat <<< $((6 * 7))", &[]),
        ("!false\nprint(_exit_code)", &[]),
        ("get_ipython().system('echo system')\nprint(get_ipython().getoutput('echo got'))", &[]),
        ("%%time\nsum(range(10))", &[]),
        ("import asyncio\nawait asyncio.sleep(0.01)\nprint('awaited')", &[]),
        ("import nest_asyncio2\nnest_asyncio2.apply()\nasync def f():\n    return 'nested'\nprint(asyncio.run(f()))", &[]),
        ("%%capture cap\nprint('held back')", &[]),
        ("cap.show()\n%who_ls str", &[]),
        ("import getpass\ngetpass.getpass()", &["raises-exception"]),
        ("get_ipython().system_raise_on_error = True\n!false", &["raises-exception"]),
        ("%%bash\nexit 3", &["raises-exception"]),
    ])
    .run();
    told.succeeded();
    let executed = told.executed();
    assert_eq!(said(&executed, 0), "from bash\n42\n");
    // IPython's own meaning: a program that fails fails no cell, unless the notebook says so.
    assert_eq!(said(&executed, 1), "1\n");
    assert_eq!(
        said(&executed, 2).replace("\r\n", "\n"),
        "system\n['got']\n"
    );
    let timed = said(&executed, 3);
    assert!(
        timed.contains("Wall time") && timed.ends_with("45"),
        "{timed}"
    );
    assert_eq!(said(&executed, 4), "awaited\n");
    assert_eq!(said(&executed, 5), "nested\n");
    assert_eq!(
        (said(&executed, 6), said(&executed, 7)),
        (String::new(), "held back\n[]".to_owned())
    );
    for (cell, ename) in [
        (8, "StdinNotImplementedError"),
        (9, "CalledProcessError"),
        (10, "CalledProcessError"),
    ] {
        assert_eq!(told.statuses()[cell].1, CellStatus::ErrorAllowed);
        assert_eq!(executed["cells"][cell]["outputs"][0]["ename"], ename);
    }
    same_by_events(&told);
}

#[test]
fn an_exception_that_is_shown_and_not_raised_is_no_success() {
    let script =
        "open('bad.py', 'w').write('import sys\\nif len(sys.argv) > 1: sys.exit(0)\\n1 / 0')";
    let told = World::notebook(&[
        (script, &[]),
        ("%run bad.py leave", &[]),
        ("%run bad.py", &["raises-exception"]),
        (
            "%run bad.py\nfrom IPython.display import clear_output\nclear_output()",
            &[],
        ),
        ("%run bad.py\nprint('went on')", &[]),
        ("print('never')", &[]),
    ])
    .run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (
            FailureKind::CellRaised,
            "ZeroDivisionError: division by zero"
        )
    );
    assert_eq!(failure.cell.as_ref().unwrap().index, 4);
    assert!(failure.hint.as_ref().unwrap().contains("%run"));
    let statuses: Vec<CellStatus> = told
        .statuses()
        .into_iter()
        .map(|(_, status)| status)
        .collect();
    let ok = CellStatus::Ok;
    assert_eq!(
        statuses,
        [ok, ok, CellStatus::ErrorAllowed, ok, CellStatus::Error]
    );
    assert_eq!(told.stdout(4), "went on\n");
}

#[test]
fn displays_are_shown_updated_and_cleared() {
    let told = World::notebook(&[
        ("import base64\nfrom IPython.display import Image, clear_output, display, update_display\n\
          png = base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg==')\n\
          # As matplotlib's inline figures: shown after the cell's code, before the kernel is idle.\n\
          get_ipython().events.register('post_execute', lambda: display(Image(png, format='png')) if show else None)\nshow = True", &[]),
        ("show = False\nh = display('one', display_id='d')\ndisplay('two', display_id='d')\nupdate_display('three', display_id='d')", &[]),
        ("for n in range(5):\n    clear_output(wait=True)\n    display(n)", &[]),
        ("import sys\nprint('out')\nprint('err', file=sys.stderr, flush=True)\nprint('out again')\n1 + 1", &[]),
        ("display({'application/json': {'a': [1]}, 'text/plain': 'j'}, raw=True, metadata={'application/json': {'expanded': True}})", &[]),
    ])
    .run();
    told.succeeded();
    let executed = told.executed();
    let data = |cell: usize| executed["cells"][cell]["outputs"][0]["data"].clone();
    assert!(
        data(0)["image/png"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    // Twice the same display, and both say what was said last.
    assert_eq!(said(&executed, 1), "'three''three'");
    assert_eq!(said(&executed, 2), "4");
    let kinds: Vec<&str> = executed["cells"][3]["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| output["output_type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.last(), Some(&"execute_result"));
    assert!(said(&executed, 3).contains("err\n"));
    assert_eq!(data(4)["application/json"], json!({"a": [1]}));
    assert_eq!(
        executed["cells"][4]["outputs"][0]["metadata"]["application/json"]["expanded"],
        true
    );
    same_by_events(&told);
}

/// Comms as ipywidgets makes them, which the test Python does not have.
const WIDGETS: &str = "\
from comm import create_comm
import sys
def widget(name, module, buffers=(), **state):
    state = {'_model_name': name, '_model_module': module, '_model_module_version': '2.0.0', **state}
    paths = [['image', n] for n in range(len(buffers))]
    return create_comm(target_name='jupyter.widget', data={'state': state, 'buffer_paths': paths}, buffers=list(buffers))
def update(comm, **state):
    sys.stdout.flush()
    comm.send({'method': 'update', 'state': state, 'buffer_paths': []})
def here():
    return get_ipython().kernel.get_parent()['header']['msg_id']
slider = widget('IntSliderModel', '@jupyter-widgets/controls', value=1, max=9)
picture = widget('ImageModel', '@jupyter-widgets/controls', [b'\\0\\1\\2', b'x' * 100_000])
out = widget('OutputModel', '@jupyter-widgets/output', msg_id='', outputs=[])
told = []
out.on_msg(lambda message: told.append(message['content']['data']['state']['outputs']))
create_comm(target_name='something.else', data={'state': {'value': 1}})
slider.send({'method': 'custom', 'content': {}})
update(slider, much=[0] * 600_000, text='x' * 40_000_000)";

#[test]
fn widgets_keep_their_state_and_capture_outputs() {
    let told = World::notebook(&[
        (WIDGETS, &[]),
        ("for n in range(3):\n    update(slider, value=n)\nupdate(out, msg_id=here())\nprint('captured')\n1 / 0", &["raises-exception"]),
        ("update(out, msg_id=here())\nprint('more')\nget_ipython().display_pub.publish({'text/html': 'h' * 3_000_000})\nget_ipython().display_pub.publish({'application/json': [0] * 600_000})\nupdate(out, msg_id='')\nprint('plain')\nslider.close()", &[]),
        ("print(len(told), [o['output_type'] for o in told[-1]])", &[]),
    ])
    .run();
    told.succeeded();
    let executed = told.executed();
    let widgets = &executed["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"];
    assert_eq!(
        (&widgets["version_major"], &widgets["version_minor"]),
        (&json!(2), &json!(0))
    );
    let models = widgets["state"].as_object().unwrap();
    assert_eq!(models.len(), 3);
    let model = |name: &str| {
        models
            .values()
            .find(|model| model["model_name"] == name)
            .unwrap()
    };
    let slider = model("IntSliderModel");
    assert_eq!(slider["model_module"], "@jupyter-widgets/controls");
    assert_eq!(
        (&slider["state"]["value"], &slider["state"]["max"]),
        (&json!(2), &json!(9))
    );
    // What no notebook keeps is said.
    assert!(slider["state"].get("much").is_none());
    let note = told.log(LogStream::Platform);
    assert!(
        note.contains("(comm_msg) is not kept: it is more than the 32 MiB"),
        "{note}"
    );
    let buffers = model("ImageModel")["buffers"].as_array().unwrap();
    assert_eq!(
        buffers[0],
        json!({"data": "AAEC", "encoding": "base64", "path": ["image", 0]})
    );
    assert_eq!(buffers[1]["data"].as_str().unwrap().len(), 133_336);
    let outputs = &model("OutputModel")["state"]["outputs"];
    assert_eq!(
        outputs[0],
        json!({"output_type": "stream", "name": "stdout", "text": "captured\n"})
    );
    assert_eq!(outputs[1]["ename"], "ZeroDivisionError");
    assert_eq!(outputs[2]["text"], "more\n");
    assert_eq!(executed["cells"][1]["outputs"], json!([]));
    assert_eq!(
        outputs[3]["data"]["text/html"].as_str().unwrap().len(),
        3_000_000
    );
    // What is more than all widgets may hold stays the cell's.
    let shown = &executed["cells"][2]["outputs"][0]["data"]["application/json"];
    assert_eq!(shown.as_array().map(Vec::len), Some(600_000));
    assert_eq!(said(&executed, 2), "plain\n");
    // A front end tells the kernel what its widget shows, once a cell.
    assert_eq!(
        said(&executed, 3),
        "2 ['stream', 'error', 'stream', 'display_data']\n"
    );
    same_by_events(&told);
}

/// The events alone make the same notebook: with them the agent and the server make theirs.
fn same_by_events(told: &Told) {
    let executed = serde_json::to_vec(&told.executed()).unwrap();
    let executed = notebook::nbformat::read(&executed).unwrap();
    let folded = told.folded();
    assert_eq!(
        folded.metadata.get("widgets"),
        executed.metadata.get("widgets")
    );
    // Display ids do not stand in a file.
    let outputs = |notebook: &notebook::Notebook| -> Vec<Value> {
        let outputs = notebook.cells.iter().map(|cell| {
            let messages = cell.outputs.iter().filter_map(notebook::Output::message);
            let messages = messages.map(|message: &OutputMessage| {
                let mut value = json!(message);
                value.as_object_mut().unwrap().remove("display_id");
                value
            });
            messages.collect::<Value>()
        });
        outputs.collect()
    };
    assert_eq!(outputs(&folded), outputs(&executed));
}
