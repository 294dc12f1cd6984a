//! Stories of versions that people compare, alias and promote.

use super::*;

#[tokio::test]
async fn two_versions_side_by_side() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world
            .ran(&[("accuracy", 0.958), ("loss", 0.2)], |_, _| {})
            .await;
        world
            .ran(&[("accuracy", 0.962), ("loss", f64::NAN)], |_, job| {
                job.spec.parameters.insert("epochs".into(), 30.into());
            })
            .await;
        world.tick().await;
        let (one, two) = (VersionRef::Number(1), VersionRef::Number(2));
        let compared = compare_versions(&world.store, "digits", &one, &two)
            .await
            .unwrap();
        let accuracy = &compared.metrics[0];
        assert_eq!(accuracy.judged, Some(Judged::Better));
        assert!((accuracy.delta.unwrap() - 0.004).abs() < 1e-9);
        let loss = &compared.metrics[1];
        assert_eq!(
            (loss.delta, loss.judged),
            (None, None),
            "no goal, no number"
        );
        let what: Vec<_> = compared
            .differences
            .iter()
            .map(|d| (d.what.as_str(), d.base.as_deref(), d.now.as_deref()))
            .collect();
        assert_eq!(what[0], ("parameter epochs", Some("20"), Some("30")));
        assert_eq!(what[1].0, "commit");
        assert_eq!(what.len(), 2, "{what:?}");
        let missing = compare_versions(&world.store, "digits", &one, &VersionRef::Number(9)).await;
        assert_eq!(
            missing.unwrap_err().to_string(),
            "model 'digits' has no version 9; `trainyard models show digits` shows what it has"
        );
    })
    .await;
}

#[tokio::test]
async fn aliases_move_and_go_back_and_remember_who() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        for _ in 0..2 {
            world.ran(&[], |_, _| {}).await;
        }
        world.tick().await;
        let store = &world.store;
        let set = |number| set_alias(store, "digits", "champion", number, "ana", "better");
        assert_eq!(set(Some(1)).await.unwrap().previous, None);
        let early = roll_back(store, "digits", "champion", "ana", "")
            .await
            .unwrap_err();
        assert!(
            matches!(early, RegistryError::NothingBefore { .. }),
            "{early}"
        );
        assert_eq!(set(Some(2)).await.unwrap().previous, Some(1));
        let champion = VersionRef::Alias("champion".into());
        let now = version(store, "digits", &champion).await.unwrap();
        assert_eq!(
            (now.version.version, now.version.aliases),
            (Some(2), vec!["champion".to_owned()])
        );
        let back = roll_back(store, "digits", "champion", "ben", "drifts")
            .await
            .unwrap();
        assert_eq!((back.version, back.previous), (Some(1), Some(2)));
        let why = version(store, "digits", &champion).await.unwrap().why;
        assert_eq!(
            why[0],
            "It is version 1 because 'train' succeeded on the default branch main."
        );
        assert!(
            why[1].starts_with("@champion points here since 20"),
            "{why:?}"
        );
        assert!(
            why[1].ends_with(" UTC: ben moved it from version 2 (drifts)."),
            "{why:?}"
        );
        let two = VersionRef::Number(2);
        let why = version(store, "digits", &two).await.unwrap().why;
        assert!(
            why[1].starts_with("@champion pointed here until"),
            "{why:?}"
        );
        assert!(
            why[1].ends_with("ben moved it to version 1 (drifts)."),
            "{why:?}"
        );
        assert!(set(Some(9)).await.is_err());
        set(None).await.unwrap();
        assert!(version(store, "digits", &champion).await.is_err());
        assert!(set(None).await.is_err(), "it is gone already");
        let history = model(store, "digits").await.unwrap().history;
        let told: Vec<_> = history.iter().map(|c| (c.by.as_str(), c.version)).collect();
        assert_eq!(
            told,
            [
                ("ana", None),
                ("ben", Some(1)),
                ("ana", Some(2)),
                ("ana", Some(1))
            ]
        );
        for bad in ["latest", "v3", "../x", "", "3"] {
            let error = set_alias(store, "digits", bad, Some(1), "ana", "")
                .await
                .unwrap_err();
            assert!(matches!(error, RegistryError::BadAlias(_)), "{bad}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_best_of_several_candidates_is_named() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut made = Vec::new();
        for (seed, accuracy) in [(1, 0.9), (2, 0.95), (3, f64::NAN)] {
            let measured = [("accuracy", accuracy)];
            let member = |_: &mut Pipeline, job: &mut Job| {
                job.spec.name = format!("train (seed={seed})");
                job.spec.first_metric = Some("accuracy".into());
            };
            made.push(world.ran(&measured, member).await.id);
            world.tick().await;
            if seed == 1 {
                let best = model(&world.store, "digits").await.unwrap().best;
                assert_eq!(best, None, "there is one only");
            }
        }
        let shown = model(&world.store, "digits").await.unwrap();
        let best = shown.best.unwrap();
        assert_eq!((best.metric.as_str(), best.of), ("accuracy", 2));
        assert_eq!((best.goal, best.value.0), (Goal::Maximize, 0.95));
        let of = shown.items.iter().find(|item| item.id == best.id).unwrap();
        assert_eq!(of.origin.as_ref().unwrap().job, made[1]);
    })
    .await;
}

#[tokio::test]
async fn what_files_are_is_seen_without_loading_them() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let folder = tempfile::tempdir().unwrap();
        let contents = crate::blobs::Blobs::open(folder.path(), None).unwrap();
        let mlmodel = "flavors:\n  python_function:\n    env: x\n  sklearn:\n    code: null\n";
        let weights: &[u8] = b"GGUF\x03\0\0\0 and many more bytes";
        let left = [
            vec![
                ("MLmodel", mlmodel.as_bytes()),
                ("model.pkl", b"\x80\x04\x95"),
            ],
            vec![("weights.bin", weights), ("net.onnx", b"\x08\x08")],
            vec![("notes.txt", b"words")],
            vec![("lost.bin", b"never kept")],
        ];
        for files in &left {
            let job = world.finished(Outcome::Succeeded, |_, _| {}).await;
            let mut done = report(Outcome::Succeeded, &[]);
            done.artifacts.clear();
            for (path, bytes) in files {
                let blob = Digest::of(bytes);
                if *path != "lost.bin" {
                    contents.put(&blob, bytes.to_vec()).await.unwrap();
                }
                done.artifacts.push(Artifact {
                    role: ArtifactRole::Model,
                    path: (*path).into(),
                    blob,
                    size: ByteSize(bytes.len() as u64),
                });
            }
            world.attempt(&job, 1, done).await;
            world.tick().await;
        }
        let mut recogniser = Recogniser::new(world.store.clone());
        assert_eq!(
            recogniser.tick(&contents).await.unwrap(),
            3,
            "one cannot be read"
        );
        assert_eq!(
            recogniser.tick(&contents).await.unwrap(),
            0,
            "each is looked at once"
        );
        let items = model(&world.store, "digits").await.unwrap().items;
        let flavours: Vec<_> = items.iter().rev().map(|v| v.flavours.join(" ")).collect();
        assert_eq!(flavours, ["python_function sklearn", "gguf onnx", "", ""]);
        let (one, two) = (VersionRef::Number(1), VersionRef::Number(2));
        let both = compare_versions(&world.store, "digits", &one, &two).await;
        let differs = both.unwrap().differences;
        assert!(differs.iter().any(|differs| differs.what == "flavour"));
    })
    .await;
}

#[tokio::test]
async fn a_person_promotes_a_candidate_once() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.ran(&[], |_, _| {}).await;
        world
            .ran(&[], |_, job| job.spec.name = "train (seed=2)".into())
            .await;
        world.tick().await;
        let store = &world.store;
        let candidate = model(store, "digits").await.unwrap().items.remove(0);
        assert_eq!(candidate.version, None);
        assert_eq!(
            candidate.because.as_deref(),
            Some("'train (seed=2)' is one of several of 'train' that compete for the name")
        );
        let id = VersionRef::Id(candidate.id.clone());
        let promoted = promote(store, "digits", &id, "ana", "best of the matrix")
            .await
            .unwrap();
        assert_eq!((promoted.version, &promoted.id), (Some(2), &candidate.id));
        assert_eq!(promoted.promotion.unwrap().why, "best of the matrix");
        let why = version(store, "digits", &id).await.unwrap().why;
        let said = &why[0];
        assert!(
            said.starts_with("It is version 2 since ana promoted it on 20"),
            "{said}"
        );
        assert!(
            said.contains(" UTC (best of the matrix). Before, it was a candidate: "),
            "{said}"
        );
        let again = promote(store, "digits", &id, "ana", "").await.unwrap_err();
        assert_eq!(again.to_string(), "this is version 2 of 'digits' already");

        let page = list(store, None, 1).await.unwrap();
        let shown = &page.items[0];
        assert_eq!((shown.versions, shown.candidates), (2, 0));
        assert_eq!(shown.latest.as_ref().unwrap().version, Some(2));
        assert_eq!(shown.project.as_deref(), Some("digits"));
        let rest = list(store, page.next.as_deref(), 1).await.unwrap();
        assert!(rest.items.is_empty() && rest.next.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_page_of_models_has_of_each_its_own() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        for accuracy in [0.5, 0.75] {
            world.ran(&[("accuracy", accuracy)], |_, _| {}).await;
        }
        for number in [7, 8] {
            world
                .ran(&[("accuracy", 0.25)], |pipeline, job| {
                    pipeline.trigger.kind = TriggerKind::PullRequest { number };
                    job.spec.model.as_mut().unwrap().name = "tried".into();
                })
                .await;
        }
        world
            .ran(&[("loss", 0.125)], |_, job| {
                job.spec.model.as_mut().unwrap().name = "other".into();
            })
            .await;
        world.tick().await;
        let store = &world.store;
        for (model, number) in [("digits", 1), ("digits", 2), ("other", 1)] {
            let alias = format!("of-{model}");
            set_alias(store, model, &alias, Some(number), "ana", "good")
                .await
                .unwrap();
        }
        let page = list(store, None, 10).await.unwrap();
        let told = |model: &protocol::registry::Model| {
            let latest = model.latest.as_ref();
            let aliases = model.aliases.iter();
            (
                model.name.clone(),
                model.project.clone(),
                (model.versions, model.candidates),
                latest.and_then(|version| version.version),
                aliases
                    .map(|alias| (alias.alias.clone(), alias.version))
                    .collect::<Vec<_>>(),
            )
        };
        let mut told: Vec<_> = page.items.iter().map(told).collect();
        told.sort();
        let project = || Some("digits".to_owned());
        let row = |name: &str, counts, latest, aliases: &[(&str, u64)]| {
            let aliases = aliases.iter().map(|(alias, to)| ((*alias).to_owned(), *to));
            (
                name.to_owned(),
                project(),
                counts,
                latest,
                aliases.collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            told,
            [
                row("digits", (2, 0), Some(2), &[("of-digits", 2)]),
                row("other", (1, 0), Some(1), &[("of-other", 1)]),
                row("tried", (0, 2), None, &[]),
            ]
        );
        let digits = model(store, "digits").await.unwrap();
        let shown: Vec<_> = digits
            .items
            .iter()
            .map(|version| {
                (
                    version.version,
                    version.aliases.len(),
                    version.metrics[0].value,
                )
            })
            .collect();
        assert_eq!(shown, [(Some(2), 1, 0.75), (Some(1), 0, 0.5)]);
        let other = model(store, "other").await.unwrap();
        assert_eq!(other.items[0].metrics[0].name, "loss");
    })
    .await;
}
