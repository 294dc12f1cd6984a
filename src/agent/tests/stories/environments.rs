//! Environments: built once, from every kind of source, and whose fault it is when they cannot be.

use protocol::event::EventKind;
use protocol::spec::PythonSource;
use protocol::{FailureKind, Outcome, Owner, ProjectId, Trust};

use crate::support::{Done, World, engine};

/// How many environments were built for a job.
fn built(done: &Done) -> usize {
    let of_it = |event: &&EventKind| matches!(event, EventKind::Phase { detail: Some(detail), .. } if detail.starts_with("built"));
    done.events().iter().filter(of_it).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_built_once_and_shared() {
    if !engine().await {
        return;
    }
    let world = World::new();
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    world.write("requirements.txt", "six==1.17.0\n").write(
        "main.py",
        "import six, sys, ipykernel; print(six.__version__, sys.prefix)\n",
    );
    let mut order = world.command("python main.py");
    order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
    let mut second = world.command("python main.py");
    second.spec.python = order.spec.python.clone();
    // Both at once: one builds, the other waits.
    let (first, second) = tokio::join!(world.run(&order), world.run(&second));
    for done in [&first, &second] {
        assert_eq!(
            done.report.outcome,
            Outcome::Succeeded,
            "{:?}",
            done.report.outcome
        );
        assert!(
            done.text().starts_with("1.17.0 /environments/"),
            "{}",
            done.text()
        );
        assert_eq!(
            done.report.setting.packages.as_deref(),
            Some("six==1.17.0\n")
        );
    }
    assert_eq!(
        first.report.setting.environment,
        second.report.setting.environment
    );
    assert_eq!(built(&first) + built(&second), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_built_without_a_container_too() {
    let world = World::with(|config| {
        (config.executors.docker, config.executors.shell) = (false, true);
    });
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    world.write("requirements.txt", "six==1.17.0\n");
    for builds in [1, 0] {
        let mut order = world.command("python -c 'import six; print(six.__version__)'");
        order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
        let done = world.run(&order).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded);
        assert_eq!(done.text(), "1.17.0\n");
        assert_eq!(built(&done), builds);
    }
    let workshop = world.host.data().join("environments/building/trusted");
    assert_eq!(std::fs::read_dir(workshop).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_of_an_untrusted_commit_is_its_own() {
    if !engine().await {
        return;
    }
    let world = World::new();
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    world.write("requirements.txt", "six==1.17.0\n");
    let (own, other) = (world.project.clone(), ProjectId::generate());
    for (project, trust, builds) in [
        (&own, Trust::Trusted, 1),
        (&own, Trust::Untrusted, 1),
        (&own, Trust::Untrusted, 0),
        (&other, Trust::Untrusted, 1),
        (&other, Trust::Untrusted, 0),
        (&other, Trust::Trusted, 0),
    ] {
        let mut order = world.command("true");
        order.trust = trust;
        order.project = project.clone();
        order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
        let done = world.run(&order).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded, "{trust:?}");
        assert_eq!(built(&done), builds, "{trust:?}");
    }
}

/// A package of the repository that needs no other one to be built: `NAME` with the module `NAME` in it.
fn package(world: &World, name: &str, module: &str, first: &str) {
    let project = format!(
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"{name}\"\nversion = \"1\"\n"
    );
    let backend = format!(
        r#"
import os, zipfile

def build_wheel(folder, settings=None, metadata=None):
{first}
    name = "{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        info = "{name}-1.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
        wheel.write("module.py", "{name}.py")
    return name
"#
    );
    world
        .write("requirements.txt", "./package\n")
        .write("package/pyproject.toml", &project)
        .write("package/backend.py", &backend)
        .write("package/module.py", module);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_the_repository_is_installed_as_it_is_now() {
    if !engine().await {
        return;
    }
    let world = World::new();
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    for value in ["first", "second"] {
        package(&world, "own", &format!("VALUE = {value:?}\n"), "");
        let mut order = world.command("python -c 'import own; print(own.VALUE)'");
        order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
        let done = world.run(&order).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded);
        assert_eq!(done.text(), format!("{value}\n"));
    }
}

/// While the container lives the link leads to what was built, so that all goes well there.
const LINKS: &str = r#"
    target = os.environ["TARGET"]
    os.rename(target, "/environments/moved")
    os.symlink("/environments/moved", target)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_cannot_put_a_folder_of_the_host_in_the_environments_place() {
    if !engine().await {
        return;
    }
    let world = World::new();
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    package(&world, "linking", "", LINKS);
    let mut order = world.command("ls /environments/*");
    order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(
        failure.kind,
        FailureKind::RequirementsUnresolved,
        "{failure:?}"
    );
    assert!(
        failure.message.contains("replaced while it was built"),
        "{failure:?}"
    );
    let ready = world.host.data().join("environments/trusted");
    for entry in std::fs::read_dir(ready).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file(), "{entry:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_comes_from_a_project_a_lock_or_a_block() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let Some(uv) = &world.host.uv else {
        eprintln!("not told: uv is not here");
        return;
    };
    let project = "[project]\nname = \"story\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six==1.17.0\"]\n";
    let locked = tempfile::tempdir().unwrap();
    std::fs::write(locked.path().join("pyproject.toml"), project).unwrap();
    let made = std::process::Command::new(uv)
        .args(["lock", "--quiet", "--no-cache", "--project"])
        .arg(locked.path())
        .status();
    assert!(made.unwrap().success(), "uv lock");
    let lock = std::fs::read_to_string(locked.path().join("uv.lock")).unwrap();
    let script = "# /// script\n# dependencies = [\"six==1.17.0\"]\n# ///\nimport six, sys; print(six.__version__, sys.prefix)\n";
    world
        .write("ml/pyproject.toml", project)
        .write("ml/uv.lock", &lock)
        .write("main.py", script);
    for source in [
        PythonSource::UvLock("ml/uv.lock".into()),
        PythonSource::Pyproject("ml/pyproject.toml".into()),
        PythonSource::Script("main.py".into()),
    ] {
        let mut order = world.command("python main.py");
        order.spec.python = Some(source.clone());
        let done = world.run(&order).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded, "{source:?}");
        let text = done.text();
        assert!(
            text.starts_with("1.17.0 /environments/"),
            "{source:?}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_uv_says_has_an_owner() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| {
        config
            .python
            .env
            .insert("UV_HTTP_RETRIES".into(), "0".into());
    });
    if world.host.uv.is_none() {
        eprintln!("not told: uv is not here");
        return;
    }
    let attempt = async |world: &World, requirement: &str| {
        world.write("requirements.txt", requirement);
        let mut order = world.command("true");
        order.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
        let done = world.run(&order).await;
        (done.failure().kind, done.failure().message.clone())
    };
    let (kind, message) = attempt(&world, "six==99.0\n").await;
    assert_eq!(kind, FailureKind::RequirementsUnresolved, "{message}");
    assert!(message.contains("six==99.0"), "{message}");
    let (kind, message) = attempt(
        &world,
        "--index-url http://127.0.0.1:9/simple\nsix==1.17.0\n",
    )
    .await;
    assert_eq!(
        (kind, kind.owner()),
        (FailureKind::IndexUnreachable, Owner::Platform),
        "{message}"
    );
}
