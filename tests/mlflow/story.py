"""Does what people do with the stock client against one server, and writes down what each step led to, as JSON.

    story.py TRACKING_URI FILE

Two servers are alike where this writes the same of them. Ids become labels in the order in which they appear, times
become "T": what is left has to be equal. A step that the server refuses gives the error's code, not its words.
"""

import json
import math
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("LOGNAME", "ana")

import mlflow  # noqa: E402
import requests  # noqa: E402
from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

URI = sys.argv[1]
mlflow.set_tracking_uri(URI)
client = mlflow.MlflowClient()
told = []
labels = {}


def label(kind, text):
    return labels.setdefault(text, f"{kind}{sum(1 for l in labels.values() if l.startswith(kind)) + 1}")


def plain(value):
    """A value without what differs by nature."""
    if isinstance(value, dict):
        return {str(plain(k)): plain(v) for k, v in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return "T" if value > 10**12 else value
    text = str(value).replace(URI, "URI")
    text = re.sub(r"m-[0-9a-f]{32}", lambda m: label("model", m.group()), text)
    text = re.sub(r"(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])", lambda m: label("id", m.group()), text)
    return re.sub(r"\b1[0-9]{12}\b", "T", text)


def step(name, do):
    """Does one thing and notes what came of it."""
    try:
        result = do()
        told.append([name, plain(result)])
        return result
    except MlflowException as error:
        told.append([name, {"refused": error.error_code}])
    except requests.HTTPError as error:
        told.append([name, {"refused": error.response.status_code}])


def raw(name, method, path, **rest):
    """A call that the client would not make: only its status and code count."""

    def do():
        answer = requests.request(method, f"{URI}{path}", timeout=60, **rest)
        try:
            code = answer.json().get("error_code")
        except ValueError:
            code = None
        return {"status": answer.status_code, "code": code}

    return step(name, do)


def run_of(run):
    """A run as far as it is the server's, and not this process's."""
    data = run.data
    tags = {k: v for k, v in data.tags.items() if not k.startswith("mlflow.source.") and k != "mlflow.user"}
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "experiment": run.info.experiment_id,
        "status": run.info.status,
        "stage": run.info.lifecycle_stage,
        "uri": run.info.artifact_uri,
        "ended": run.info.end_time is not None,
        "metrics": {m.key: [m.value, m.step, m.timestamp] for m in data._metric_objs},
        "params": data.params,
        "tags": tags,
        "datasets": [
            [d.dataset.name, d.dataset.digest, d.dataset.source_type, {t.key: t.value for t in d.tags}]
            for d in run.inputs.dataset_inputs
        ],
        "inputs": [m.model_id for m in run.inputs.model_inputs or []],
        "outputs": [[m.model_id, m.step] for m in (run.outputs.model_outputs if run.outputs else [])],
    }


def version_of(version):
    return {
        "name": version.name,
        "version": str(version.version),
        "stage": version.current_stage,
        "description": version.description,
        "source": version.source,
        "run": version.run_id,
        "status": version.status,
        "tags": version.tags,
        "aliases": sorted(version.aliases),
    }


def model_of(model):
    return {
        "name": model.name,
        "description": model.description,
        "tags": model.tags,
        "aliases": {k: str(v) for k, v in model.aliases.items()},
        "latest": sorted([v.current_stage, str(v.version)] for v in model.latest_versions or []),
    }


def logged_of(model):
    return {
        "id": model.model_id,
        "name": model.name,
        "status": str(model.status),
        "type": model.model_type,
        "run": model.source_run_id,
        "uri": model.artifact_location,
        "tags": {k: v for k, v in model.tags.items() if not k.startswith("mlflow.source.") and k != "mlflow.user"},
        "params": model.params,
        "metrics": sorted(
            [m.key, m.value, m.step, m.dataset_name, m.dataset_digest, m.run_id] for m in model.metrics or []
        ),
    }


def experiments():
    step("experiment: create", lambda: client.create_experiment("digits", tags={"team": "vision"}))
    step("experiment: twice", lambda: client.create_experiment("digits"))
    step("experiment: empty name", lambda: client.create_experiment(""))
    found = client.get_experiment_by_name("digits")

    def shown(e):
        return [e.name, e.artifact_location, e.lifecycle_stage, e.tags]

    step("experiment: by name", lambda: shown(found))
    step("experiment: default", lambda: shown(client.get_experiment("0")))
    step("experiment: none", lambda: client.get_experiment("999"))
    step("experiment: no such name", lambda: client.get_experiment_by_name("nothing"))
    step("experiment: tag", lambda: client.set_experiment_tag(found.experiment_id, "stage", "early"))
    step("experiment: rename", lambda: client.rename_experiment(found.experiment_id, "digits-2"))
    for name in ("a", "b", "c"):
        client.create_experiment(f"more-{name}", tags={"kind": name})

    def names(**how):
        return [e.name for e in client.search_experiments(**how)]

    step("experiments: all by name", lambda: names(order_by=["name ASC"]))
    step("experiments: filter", lambda: names(filter_string="name LIKE 'more-%'", order_by=["name DESC"]))
    step("experiments: any case", lambda: names(filter_string="name ILIKE 'MORE-%'", order_by=["name"]))
    step("experiments: case", lambda: names(filter_string="name LIKE 'MORE-%'"))
    step("experiments: tag", lambda: names(filter_string="tags.kind = 'b'"))
    step("experiments: no tag", lambda: names(filter_string="tags.kind IS NULL", order_by=["name"]))
    step("experiments: id", lambda: names(filter_string=f"experiment_id = '{found.experiment_id}'"))
    step("experiments: bad", lambda: names(filter_string="name > 'x'"))
    page = client.search_experiments(max_results=2, order_by=["name"])
    step("experiments: page", lambda: [e.name for e in page])
    step("experiments: next page", lambda: names(max_results=2, order_by=["name"], page_token=page.token))
    gone = client.get_experiment_by_name("more-c").experiment_id
    step("experiment: delete", lambda: client.delete_experiment(gone))
    step("experiment: delete again", lambda: client.delete_experiment(gone))
    step("experiments: deleted", lambda: names(view_type=ViewType.DELETED_ONLY))
    step("experiment: name of a deleted one", lambda: client.create_experiment("more-c"))
    step("experiment: run in a deleted one", lambda: client.create_run(gone))
    step("experiment: restore", lambda: client.restore_experiment(gone))
    step("experiment: restore again", lambda: client.restore_experiment(gone))
    step("experiments: active", lambda: names(order_by=["name"]))
    return found.experiment_id


def logging(experiment):
    run = client.create_run(experiment, start_time=1_700_000_000_000, run_name="first", tags={"a": "1"})
    id = run.info.run_id
    step("run: begun", lambda: run_of(run))
    step("log: param", lambda: client.log_param(id, "lr", 0.1))
    step("log: same param", lambda: client.log_param(id, "lr", "0.1"))
    step("log: other value", lambda: client.log_param(id, "lr", "0.2"))
    for number, value in enumerate([0.5, 0.25, float("nan"), 0.125]):
        client.log_metric(id, "loss", value, timestamp=1_700_000_000_000 + number, step=number)
    client.log_metric(id, "late", 5.0, timestamp=1_700_000_000_009, step=9)
    client.log_metric(id, "late", 1.0, timestamp=1_700_000_000_001, step=1)
    client.log_metric(id, "val/acc top-1", 0.75, timestamp=1_700_000_000_000)
    step("log: no name", lambda: client.log_metric(id, "a//b", 1.0))
    step("log: climbing name", lambda: client.log_metric(id, "../../x", 1.0))
    step("log: tag", lambda: client.set_tag(id, "note", "ü" * 9000))
    step("log: tag away", lambda: client.delete_tag(id, "a"))
    step("log: no such tag", lambda: client.delete_tag(id, "a"))
    many = [Metric(f"m{n % 10}", n / 2, 1_700_000_000_000 + n, n) for n in range(1000)]
    step("log: batch of metrics", lambda: client.log_batch(id, metrics=many))
    step("log: same batch again", lambda: client.log_batch(id, metrics=many))
    step(
        "log: batch",
        lambda: client.log_batch(
            id, [Metric("b", 1.0, 1_700_000_000_000, 0)], [Param("depth", "3")], [RunTag("t", "2"), RunTag("t", "3")]
        ),
    )
    bad = [{"key": "good", "value": 1, "timestamp": 1}, {"key": "a//b", "value": 1, "timestamp": 1}]
    raw("log: a bad one in a batch", "POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": id, "metrics": bad})
    conflict = {"run_id": id, "params": [{"key": "new", "value": "1"}, {"key": "lr", "value": "9"}]}
    raw("log: a changed param in a batch", "POST", "/api/2.0/mlflow/runs/log-batch", json=conflict)
    much = [{"key": "x", "value": 1, "timestamp": n} for n in range(1001)]
    raw("log: 1,001 metrics", "POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": id, "metrics": much})
    twice = [{"key": "p", "value": "1"}, {"key": "p", "value": "1"}]
    raw("log: a param twice", "POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": id, "params": twice})
    raw("log: no run", "POST", "/api/2.0/mlflow/runs/log-metric", json={"key": "a", "value": 1, "timestamp": 1})
    word = {"run_id": id, "key": "w", "value": "NaN", "timestamp": "7", "step": "2"}
    raw("log: numbers as texts", "POST", "/api/2.0/mlflow/runs/log-metric", json=word)
    wrong = {"run_id": id, "key": "w", "value": "x", "timestamp": 7}
    raw("log: no number", "POST", "/api/2.0/mlflow/runs/log-metric", json=wrong)
    step("log: no such run", lambda: client.log_metric("0" * 32, "a", 1.0))

    def curve(key):
        return [[m.value, m.timestamp, m.step] for m in client.get_metric_history(id, key)]

    step("curve", lambda: curve("loss"))
    step("curve: in disorder", lambda: curve("late"))
    step("curve: many", lambda: len(curve("m3")))
    step("curve: none", lambda: curve("nothing"))
    step("run: renamed", lambda: client.update_run(id, name="second"))
    step("run: ended", lambda: client.set_terminated(id, "FAILED", end_time=1_700_000_100_000))
    step("run: read", lambda: run_of(client.get_run(id)))
    step("run: none", lambda: client.get_run("0" * 32))
    step("run: delete", lambda: client.delete_run(id))
    step("run: deleted", lambda: client.get_run(id).info.lifecycle_stage)
    step("run: log to a deleted one", lambda: client.log_metric(id, "a", 1.0))
    step("run: restore", lambda: client.restore_run(id))
    step("run: restored", lambda: run_of(client.get_run(id)))
    return id


def searching():
    experiment = client.create_experiment("searched")
    ids = []
    for n in range(12):
        tags = {"group": "odd" if n % 2 else "even", "mlflow.note": f"N{n}"}
        run = client.create_run(experiment, start_time=1_700_000_000_000 + n, run_name=f"run-{n:02}", tags=tags)
        ids.append(run.info.run_id)
        label("id", run.info.run_id)
        if n != 3:
            value = float("nan") if n == 5 else n / 10
            client.log_metric(run.info.run_id, "score", value, timestamp=1_700_000_000_000)
        client.log_param(run.info.run_id, "depth", str(n % 3))
        if n < 10:
            client.set_terminated(run.info.run_id, "FINISHED" if n % 2 else "FAILED", 1_700_000_001_000 + n)
    client.delete_run(ids[11])

    def found(text="", order=None, **rest):
        runs = client.search_runs([experiment], text, order_by=order, **rest)
        return [r.info.run_name for r in runs]

    for text in [
        "",
        "metrics.score > 0.35",
        "metrics.score != 0.4",
        "metrics.score >= 0.2 AND metrics.score <= 0.4",
        "params.depth = '1'",
        "params.depth != '1' and tags.group = 'odd'",
        "tags.`mlflow.note` LIKE 'N1%'",
        "tags.\"mlflow.note\" ILIKE 'n1%'",
        "tags.group LIKE 'ODD'",
        "attributes.status = 'FINISHED'",
        "status != 'FINISHED'",
        "attributes.run_name LIKE 'run-0%'",
        f"run_id IN ('{ids[1]}', '{ids[2]}')",
        f"run_id NOT IN ('{ids[1]}', '{ids[2]}') AND params.depth = '1'",
        "attributes.start_time > 1700000000008",
        "attributes.end_time < 1700000001003",
        "params.nothing IS NULL AND metrics.score < 0.2",
        "tags.group IS NOT NULL",
        "metrics.score = 'x'",
        "params.depth > '1'",
        "params.depth = 1",
        "weird.thing = 'x'",
        "attributes.nothing = 'x'",
        "metrics.score > 0.1 OR metrics.score < 0",
        "metrics.score > 0; DROP TABLE runs",
        "tags.group = 'odd' UNION SELECT 1",
    ]:
        step(f"search: {plain(text)}", lambda text=text: found(text))
    for order in [
        ["metrics.score DESC"],
        ["metrics.score ASC"],
        ["metrics.score"],
        ["params.depth DESC", "attributes.start_time ASC"],
        ["tags.`mlflow.note` ASC"],
        ["attributes.end_time DESC"],
        ["start_time"],
        ["attributes.run_name DESC"],
        ["nothing DESC"],
        ["metrics.score; DROP TABLE runs"],
        ["metrics.score DESC NULLS"],
    ]:
        step(f"order: {order}", lambda order=order: found(order=order))
    step("search: deleted", lambda: found(run_view_type=ViewType.DELETED_ONLY))
    step("search: all", lambda: found(run_view_type=ViewType.ALL, order=["start_time"]))
    page = client.search_runs([experiment], order_by=["start_time"], max_results=5)
    step("search: page", lambda: [r.info.run_name for r in page])
    step("search: next page", lambda: found(order=["start_time"], max_results=5, page_token=page.token))
    step("search: bad token", lambda: found(page_token="!!!"))
    step("search: too many", lambda: found(max_results=50_001))
    step("search: no experiment", lambda: len(client.search_runs([])))
    return experiment


def nested_and_datasets():
    import numpy

    mlflow.set_experiment("nested")
    with mlflow.start_run(run_name="outer") as outer:
        mlflow.log_params({"a": 1, "b": "two"})
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("deep", 1.0)
        data = mlflow.data.from_numpy(numpy.arange(6).reshape(3, 2), name="numbers", targets=numpy.arange(3))
        mlflow.log_input(data, context="training", tags={"split": "first"})
        mlflow.log_input(data, context="training")
    step("nested: outer", lambda: run_of(client.get_run(outer.info.run_id)))
    step("nested: inner", lambda: run_of(client.get_run(inner.info.run_id)))
    experiment = client.get_experiment_by_name("nested").experiment_id
    for text in [
        f"tags.mlflow.parentRunId = '{outer.info.run_id}'",
        "datasets.name = 'numbers'",
        "dataset.context = 'training'",
        "datasets.name LIKE 'num%' AND datasets.context = 'testing'",
    ]:
        step(
            f"nested: {plain(text)}",
            lambda text=text: [r.info.run_name for r in client.search_runs([experiment], text)],
        )
    with mlflow.start_run(run_id=inner.info.run_id):
        mlflow.log_metric("deep", 2.0, step=1)
    step("nested: resumed", lambda: client.get_run(inner.info.run_id).data.metrics)


def files(run):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "sub" / "deep").mkdir(parents=True)
        (folder / "a b.txt").write_text("hello")
        (folder / "sub" / "größe.bin").write_bytes(bytes(range(256)) * 1000)
        (folder / "sub" / "deep" / "page.html").write_text("<script>alert(1)</script>")
        (folder / "empty").write_bytes(b"")
        step("files: all", lambda: client.log_artifacts(run, str(folder)))
        step("files: one", lambda: client.log_artifact(run, str(folder / "a b.txt"), "other/place"))
        step("files: text", lambda: client.log_text(run, "changed", "a b.txt"))
        step("files: dict", lambda: client.log_dict(run, {"a": [1, 2]}, "data/x.json"))

    def listed(path=None):
        return [[f.path, f.is_dir, f.file_size] for f in client.list_artifacts(run, path)]

    for path in [None, "sub", "sub/deep", "other", "nothing", "a b.txt"]:
        step(f"files: list {path}", lambda path=path: listed(path))
    with tempfile.TemporaryDirectory() as folder:
        got = pathlib.Path(client.download_artifacts(run, "", folder))
        every = sorted(p for p in got.rglob("*") if p.is_file())
        step("files: downloaded", lambda: [[str(p.relative_to(got)), p.stat().st_size] for p in every])
        step("files: bytes", lambda: (got / "sub" / "größe.bin").read_bytes() == bytes(range(256)) * 1000)
    step("files: text read", lambda: mlflow.artifacts.load_text(f"runs:/{run}/a b.txt"))
    step("files: dict read", lambda: mlflow.artifacts.load_dict(f"runs:/{run}/data/x.json"))


def training():
    import numpy
    from sklearn.linear_model import LogisticRegression

    numbers = numpy.random.default_rng(1)
    x = numbers.normal(size=(60, 2))
    y = (x[:, 0] > 0).astype(int)
    mlflow.set_experiment("training")
    mlflow.sklearn.autolog(log_models=False, silent=True, log_datasets=True)
    with mlflow.start_run(run_name="auto") as auto:
        fitted = LogisticRegression(C=0.5).fit(x, y)
    mlflow.sklearn.autolog(disable=True)
    seen = run_of(client.get_run(auto.info.run_id))
    step("autolog: params", lambda: seen["params"])
    step("autolog: metrics", lambda: {k: [round(v[0], 9), v[1]] for k, v in seen["metrics"].items()})
    step("autolog: datasets", lambda: [[d[0], d[2], d[3]] for d in seen["datasets"]])
    with mlflow.start_run(run_name="model") as run:
        mlflow.log_metric("acc", 0.9)
        info = mlflow.sklearn.log_model(
            fitted, name="classifier", params={"C": 0.5}, tags={"kind": "linear"}, pip_requirements=["scikit-learn"]
        )
        mlflow.log_metric("after", 0.8, model_id=info.model_id)
    step("logged model", lambda: logged_of(client.get_logged_model(info.model_id)))
    shown = run_of(client.get_run(run.info.run_id))
    shown["tags"].pop("mlflow.log-model.history", None)
    step("logged model: its run", lambda: shown)

    def found(**how):
        experiment = client.get_experiment_by_name("training").experiment_id
        return [m.name for m in client.search_logged_models([experiment], **how)]

    step("logged models: all", lambda: found())
    step("logged models: filter", lambda: found(filter_string="name = 'classifier' AND params.C = '0.5'"))
    step("logged models: metric", lambda: found(filter_string="metrics.after > 0.5"))
    step("logged models: none", lambda: found(filter_string="metrics.after > 0.9"))
    step("logged models: order", lambda: found(order_by=[{"field_name": "metrics.after", "ascending": False}]))
    step("logged models: bad", lambda: found(filter_string="nothing > 'x'"))
    step("logged model: tag", lambda: client.set_logged_model_tags(info.model_id, {"x": "1", "y": "2"}))
    step("logged model: tag away", lambda: client.delete_logged_model_tag(info.model_id, "x"))
    step("logged model: no such tag", lambda: client.delete_logged_model_tag(info.model_id, "x"))
    step("logged model: none", lambda: client.get_logged_model("m-" + "0" * 32))
    listed = client.list_logged_model_artifacts(info.model_id) if hasattr(client, "list_logged_model_artifacts") else []
    step("logged model: files", lambda: sorted(f.path for f in listed))
    return run.info.run_id, info, fitted, x


def registry(run, info, fitted, x):
    step("model: create", lambda: model_of(client.create_registered_model("digits", {"a": "1"}, "The digits")))
    step("model: twice", lambda: client.create_registered_model("digits"))
    step("model: bad name", lambda: client.create_registered_model("../../x"))
    step("model: none", lambda: client.get_registered_model("nothing"))
    first = step("version: of a logged model", lambda: version_of(mlflow.register_model(info.model_uri, "digits")))
    assert first is None or first["version"] == "1"
    step(
        "version: of a run",
        lambda: version_of(client.create_model_version("digits", f"runs:/{run}/classifier", run, {"t": "1"})),
    )
    copied = "models:/digits/1"
    step("version: copied", lambda: version_of(client.copy_model_version(copied, "copy")))
    for source in ["/etc", "file:///etc", "mlflow-artifacts:/../..", f"runs:/{'0' * 32}/model", "models:/nothing/1"]:
        body = {"name": "digits", "source": source, "run_id": run}
        raw(f"version: source {source}", "POST", "/api/2.0/mlflow/model-versions/create", json=body)
    step("version: read", lambda: version_of(client.get_model_version("digits", "1")))
    step("version: none", lambda: client.get_model_version("digits", "9"))
    step("version: no number", lambda: client.get_model_version("digits", "x"))
    step("version: uri", lambda: client.get_model_version_download_uri("digits", "2"))
    step("version: description", lambda: version_of(client.update_model_version("digits", "2", "Better")))
    step("version: tag", lambda: client.set_model_version_tag("digits", "2", "ok", "yes"))
    step("version: tag away", lambda: client.delete_model_version_tag("digits", "2", "t"))
    step("version: tag away again", lambda: client.delete_model_version_tag("digits", "2", "t"))
    step("alias: set", lambda: client.set_registered_model_alias("digits", "champion", "1"))
    step("alias: moved", lambda: client.set_registered_model_alias("digits", "champion", "2"))
    step("alias: other", lambda: client.set_registered_model_alias("digits", "old", "1"))
    step("alias: latest", lambda: client.set_registered_model_alias("digits", "latest", "1"))
    step("alias: v1", lambda: client.set_registered_model_alias("digits", "v1", "1"))
    step("alias: no version", lambda: client.set_registered_model_alias("digits", "champion", "9"))
    step("alias: read", lambda: version_of(client.get_model_version_by_alias("digits", "champion")))
    step("alias: none", lambda: client.get_model_version_by_alias("digits", "nothing"))
    step("alias: away", lambda: client.delete_registered_model_alias("digits", "old"))
    step("alias: away again", lambda: client.delete_registered_model_alias("digits", "old"))
    client.set_registered_model_alias("digits", "champion", "1")
    loaded = step("model: loads", lambda: type(mlflow.sklearn.load_model("models:/digits@champion")).__name__)
    assert loaded == "LogisticRegression", loaded
    same = mlflow.pyfunc.load_model("models:/digits/1").predict(x).tolist() == fitted.predict(x).tolist()
    step("model: predicts the same", lambda: same)
    step("stage: production", lambda: version_of(client.transition_model_version_stage("digits", "1", "production")))
    step(
        "stage: archived by another",
        lambda: version_of(client.transition_model_version_stage("digits", "2", "Production", True)),
    )
    step("stage: the other", lambda: client.get_model_version("digits", "1").current_stage)
    step("stage: wrong", lambda: client.transition_model_version_stage("digits", "1", "nowhere"))
    step("stage: latest", lambda: sorted(v.version for v in client.get_latest_versions("digits")))
    step("stage: latest of one", lambda: [v.version for v in client.get_latest_versions("digits", ["Production"])])
    step("model: update", lambda: model_of(client.update_registered_model("digits", "All digits")))
    step("model: tag", lambda: client.set_registered_model_tag("digits", "b", "2"))
    step("model: tag away", lambda: client.delete_registered_model_tag("digits", "a"))
    step("model: read", lambda: model_of(client.get_registered_model("digits")))
    client.create_registered_model("other", {"b": "3"})

    def models(**how):
        return [m.name for m in client.search_registered_models(**how)]

    step("models: all", lambda: models())
    step("models: filter", lambda: models(filter_string="name LIKE 'dig%'"))
    step("models: tag", lambda: models(filter_string="tags.b = '3'"))
    step("models: order", lambda: models(order_by=["name DESC"]))
    step("models: bad order", lambda: models(order_by=["weight DESC"]))
    step("models: bad filter", lambda: models(filter_string="weight > 1"))
    page = client.search_registered_models(max_results=1)
    step("models: page", lambda: [m.name for m in page])
    step("models: next page", lambda: models(max_results=1, page_token=page.token))

    def versions(text="", **how):
        return [[v.name, str(v.version)] for v in client.search_model_versions(text, **how)]

    order = {"order_by": ["name ASC", "version_number ASC"]}
    step("versions: all", lambda: versions(**order))
    step("versions: of one", lambda: versions("name = 'digits'", **order))
    step("versions: of a run", lambda: versions(f"run_id = '{run}' AND name = 'digits'", **order))
    step("versions: number", lambda: versions("version_number > 1", **order))
    step("versions: tag", lambda: versions("tags.ok = 'yes'", **order))
    step("versions: list", lambda: versions("name IN ('digits', 'copy')", **order))
    step("versions: bad", lambda: versions("version_number > 'x'"))
    step("version: delete", lambda: client.delete_model_version("digits", "2"))
    step("version: deleted", lambda: client.get_model_version("digits", "2"))
    step("versions: left", lambda: versions("name = 'digits'", **order))
    again = client.create_model_version("digits", f"runs:/{run}/classifier", run)
    step("version: numbers are not used again", lambda: str(again.version))
    step("model: rename", lambda: client.rename_registered_model("digits", "numbers"))
    step("model: new name", lambda: model_of(client.get_registered_model("numbers")))
    step("model: old name", lambda: client.get_registered_model("digits"))
    step("model: alias after the rename", lambda: version_of(client.get_model_version_by_alias("numbers", "champion")))
    step("model: taken name", lambda: client.rename_registered_model("numbers", "other"))
    step("model: delete", lambda: client.delete_registered_model("numbers"))
    step("model: deleted", lambda: client.get_registered_model("numbers"))
    step("models: left", lambda: models())


def probes():
    step("probe: health", lambda: requests.get(f"{URI}/health", timeout=60).text)
    step("probe: version", lambda: requests.get(f"{URI}/version", timeout=60).text)
    raw("probe: body as text", "POST", "/api/2.0/mlflow/runs/create", data="{}", headers={"content-type": "text/plain"})
    raw("probe: no such experiment", "GET", "/api/2.0/mlflow/experiments/get?experiment_id=12345")
    raw("probe: missing parameter", "GET", "/api/2.0/mlflow/experiments/get")


def main():
    digits = experiments()
    run = logging(digits)
    searching()
    nested_and_datasets()
    files(run)
    registry(*training())
    probes()
    pathlib.Path(sys.argv[2]).write_text(json.dumps(told, indent=1, ensure_ascii=False))


main()
