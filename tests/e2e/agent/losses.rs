//! What gets lost on the way, and what is left at the end.

use protocol::agent_api::ParentModel;
use protocol::registry::ModelFile;

use super::*;
use crate::support::gpus::FakeGpus;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_starts_though_answers_get_lost() {
    let host = Host::new("").await;
    host.server.with(|world| world.faults.lost_starts = 2);
    host.order("echo line 1", |order| order.spec.artifacts.clear());
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(1));
    wait("its folder is removed", || host.attempts().is_empty()).await;
    host.server
        .until("it leaves the polls", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| poll.attempts.is_empty())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_repeated_or_forgotten_leave_a_whole_story() {
    let host = Host::new("").await;
    host.server.with(|world| {
        world.faults.unacknowledged = 3;
        world.faults.forgotten = 3;
    });
    let (go, count) = (host.path("go"), host.path("count"));
    let text = format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i > {}",
        go.display(),
        count.display()
    );
    host.order(&text, |order| order.spec.artifacts.clear());
    host.server
        .until("all has gone wrong", |world| {
            (world.faults.unacknowledged, world.faults.forgotten) == (0, 0)
        })
        .await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    let count = std::fs::read_to_string(&count).unwrap();
    assert_eq!(host.output(), lines(count.trim().parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_was_cut() {
    let host = Host::new("").await;
    host.server.with(|world| {
        world.faults.cut_pieces = 2;
        world.faults.wrong_hashes = 1;
    });
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(1, &file), |_| {});
    assert_eq!(host.reported().await, Outcome::Succeeded);
    host.server.with(|world| {
        let blob = Digest::of(vec![b'a'; 20_000_000]);
        assert_eq!(world.blobs.get(&blob).map(Vec::len), Some(20_000_000));
        // Twice whole, because the hash was doubted once, and two halves of a piece.
        assert!(
            world.received <= 2 * 20_000_000 + 2 * (8 << 20),
            "{}",
            world.received
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_never_takes_is_the_platforms_failure() {
    let host = Host::new("").await;
    host.server.with(|world| world.faults.wrong_hashes = 100);
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(1, &file), |_| {});
    let Outcome::Failed(failure) = host.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::UploadFailed);
    assert!(failure.message.contains("out.bin"), "{}", failure.message);
    host.server
        .with(|world| assert!(world.reports[0].artifacts.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_attempt_ends_and_leaves_nothing() {
    let host = Host::new("").await;
    let pid = host.path("pid");
    let id = host.order(
        &format!("echo $$ > {}; exec sleep 600", pid.display()),
        |_| {},
    );
    wait("the job runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    host.server.with(|world| world.abandoned.insert(id));
    let process = format!("/proc/{}", std::fs::read_to_string(&pid).unwrap().trim());
    wait("the job is ended", || !Path::new(&process).exists()).await;
    wait("its folder is removed", || host.attempts().is_empty()).await;
    host.server
        .until("it leaves the polls", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| poll.attempts.is_empty())
        })
        .await;
    host.server.with(|world| assert!(world.reports.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_attempt_reports_who_asked() {
    let host = Host::new("").await;
    let id = host.order("echo line 1; exec sleep 600", |order| {
        order.spec.artifacts.clear()
    });
    host.server
        .until("the job runs", |world| {
            world.events.iter().any(|event| {
                matches!(
                    event.body.known(),
                    Some(EventKind::Log {
                        stream: LogStream::Stdout,
                        ..
                    })
                )
            })
        })
        .await;
    host.server.with(|world| {
        world.stops.push(StopOrder {
            attempt: id,
            by: "ada".into(),
            grace: Span::secs(5),
        });
    });
    assert_eq!(
        host.reported().await,
        Outcome::Cancelled { by: "ada".into() }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_needs_lies_there_or_the_platform_is_to_blame() {
    let host = Host::new("").await;
    let bytes = b"from an earlier job\n".to_vec();
    let need = Artifact {
        role: ArtifactRole::Declared,
        path: "data/part.txt".into(),
        blob: Digest::of(&bytes),
        size: ByteSize(bytes.len() as u64),
    };
    let needs: BTreeMap<_, _> = [("prepare".to_owned(), vec![need.clone()])].into();
    host.server
        .with(|world| world.blobs.insert(need.blob.clone(), bytes));
    host.order("cat $TRAINYARD_NEEDS/prepare/data/part.txt", |order| {
        order.spec.artifacts.clear();
        order.needs = needs.clone();
    });
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), "from an earlier job\n");

    let other = Host::new("").await;
    other.server.with(|world| {
        world
            .blobs
            .insert(need.blob.clone(), b"from an earlier job\n".to_vec());
        world.faults.changed = Some(need.blob.clone());
    });
    other.order("cat $TRAINYARD_NEEDS/prepare/data/part.txt", |order| {
        order.needs = needs
    });
    let Outcome::Failed(failure) = other.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::CheckoutFailed);
    assert!(
        failure.message.contains("data/part.txt") && failure.message.contains("hash"),
        "{}",
        failure.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_to_go_on_from_lies_there_or_says_why_it_does_not() {
    let bytes = b"weights\n".to_vec();
    let file = |path: &str| ModelFile {
        path: path.into(),
        blob: Digest::of(&bytes),
        size: ByteSize(bytes.len() as u64),
    };
    let told = async |files: Vec<ModelFile>| {
        let host = Host::new("").await;
        let blob = Digest::of(&bytes);
        host.server
            .with(|world| world.blobs.insert(blob, bytes.clone()));
        host.order("cat $TRAINYARD_PARENT_DIR/deep/w", |order| {
            order.spec.artifacts.clear();
            order.parent = Some(ParentModel {
                model: "digits".into(),
                version: 3,
                files,
            });
        });
        (host.reported().await, host.output())
    };
    let (outcome, output) = told(vec![file("deep/w"), file("other")]).await;
    assert_eq!(
        (outcome, output.as_str()),
        (Outcome::Succeeded, "weights\n")
    );
    for (files, kind, words) in [
        (vec![], FailureKind::ModelMissing, "version 3 of 'digits'"),
        (
            vec![file("../w")],
            FailureKind::Internal,
            "unsafe path '../w'",
        ),
    ] {
        let (Outcome::Failed(failure), _) = told(files).await else {
            panic!("it succeeded")
        };
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workspace_of_a_failed_job_is_kept_without_its_secrets() {
    let host = Host::new("").await;
    let id = host.order("echo made > left.txt; exit 3", |order| {
        order.spec.artifacts.clear();
        order.spec.secrets = vec!["HF_TOKEN".into()];
        order.secrets = [("HF_TOKEN".to_owned(), "hf-very-secret".to_owned())].into();
    });
    let Outcome::Failed(failure) = host.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::CommandFailed);
    let folder = host.path("data/attempts").join(id.as_str());
    wait("it is kept", || folder.join("reported").exists()).await;
    assert_eq!(
        std::fs::read_to_string(folder.join("workspace/left.txt")).unwrap(),
        "made\n"
    );
    wait("nothing else is", || !folder.join("journal").exists()).await;
    let order = std::fs::read_to_string(folder.join("order.json")).unwrap();
    assert!(!order.contains("hf-very-secret"), "{order}");
}

/// The server had not heard of the loan when it gave the job away.
#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_was_lent_meanwhile_is_taken_back_and_blames_nobody() {
    let gpus = FakeGpus::of("one");
    let library = format!("[gpus]\nlibrary = \"{}\"\n", gpus.library().display());
    let host = Host::new(&library).await;
    host.server.until("it polls", |world| world.polls > 0).await;
    let lent = host
        .command(&["gpus", "reserve", "0", "--for", "ada", "--until", "8h"])
        .output()
        .unwrap();
    assert!(lent.status.success(), "{lent:?}");
    host.order("echo line 1", |order| {
        order.gpus = vec!["GPU-0a1b2c3d-0000-4000-8000-000000000001".to_owned()];
    });
    let outcome = host.reported().await;
    // What a server believes that does not know of it.
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::GpuUnclean),
        "{outcome:?}"
    );
    let by = "ada, to whom GPU 0 (GPU-0a1b2c3d-0000-4000-8000-000000000001) is lent";
    host.server.with(|world| {
        assert_eq!(world.reports[0].withdrawn.as_deref(), Some(by));
        let last = world.events.last().and_then(|event| event.body.known());
        let cancelled = Outcome::Cancelled { by: by.to_owned() };
        assert!(
            matches!(last, Some(EventKind::Finished { outcome }) if *outcome == cancelled),
            "{last:?}"
        );
    });
}
