#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use tempfile::TempDir;
use world::Change;

use super::*;
use crate::files::Content;

const TIME: &str = "2026-11-22T01:00:00.000Z";

fn intent(name: &str, service: &str, weight: u32) -> String {
    format!(
        "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\nmetadata: {{name: {name}, namespace: shop, \
         labels: {{team: a}}}}\nspec:\n  service: {{name: {service}}}\n  analysis: {{maxStepDuration: 90s, minDuration: 5s}}\n  \
         strategy: {{canary: {{steps: [{{setWeight: {weight}.5}}, {{pause: {{duration: 90s}}}}, {{setWeight: 100}}]}}}}\n---\n"
    )
    .replace(", minDuration: 5s", "")
}

const PROFILE: &str = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: AnalysisProfile\n\
    metadata: {name: strict, namespace: shop}\nspec: {metrics: [{name: errors, kind: ErrorRate, slo: 0.01}]}\n---\n";
const FREEZE: &str = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: Freeze\n\
    metadata: {name: holidays, namespace: shop}\nspec: {from: 2026-12-24T00:00:00Z, reason: nobody is there}\n---\n";

fn reference(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::DeploymentIntent, "shop", name)
}

fn application(document: &str) -> Application {
    Application { document: document.to_owned(), ..Application::default() }
}

/// A shelf in a directory of its own, beside files.
struct Stage {
    directory: TempDir,
    shelf: Shelf,
    files: Files,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let shelf = Shelf::open(directory.path()).unwrap();
        Self { directory, shelf, files: Files::new(Options::default()) }
    }

    /// As after a restart.
    fn again(self) -> Self {
        let shelf = Shelf::open(self.directory.path()).unwrap();
        let mut files = Files::new(Options::default());
        shelf.fill(&mut files);
        Self { shelf, files, ..self }
    }

    fn submit(&mut self, submission: Submission) -> Result<(Vec<Change>, Acceptance), Refusal> {
        self.shelf.take(&submission, TIME, &mut self.files)
    }

    fn apply(&mut self, document: &str) -> Result<(Vec<Change>, Acceptance), Refusal> {
        self.submit(Submission::Apply(application(document)))
    }

    fn delete(&mut self, name: &str) -> Result<(Vec<Change>, Acceptance), Refusal> {
        let reference = reference(name);
        self.submit(Submission::Delete(Deletion { reference, expected_generation: None, is_dry_run: false }))
    }

    /// Generation and first weight of the intent that is in force.
    fn in_force(&self, name: &str) -> Option<(i64, u32)> {
        let object = self.files.objects().find(|object| object.reference == reference(name))?;
        let Spec::DeploymentIntent(intent) = &object.spec else { panic!("{object:?}") };
        let weight = intent.strategy.canary.as_ref().unwrap().steps[0].set_weight.unwrap();
        Some((object.meta.generation, weight.ppm() / 10_000))
    }
}

/// What became of each object, with its generation.
fn effects(answer: Result<(Vec<Change>, Acceptance), Refusal>) -> Vec<(Effect, i64)> {
    answer.unwrap().1.objects.into_iter().map(|taken| (taken.effect, taken.generation)).collect()
}

#[test]
fn what_is_applied_survives_a_restart_with_its_generation() {
    let mut stage = Stage::new();
    assert_eq!(effects(stage.apply(&intent("web", "web", 10))), [(Effect::Created, 1)]);
    assert_eq!(effects(stage.apply(&intent("web", "web", 10))), [(Effect::Unchanged, 1)]);
    assert_eq!(effects(stage.apply(&intent("web", "web", 20))), [(Effect::Changed, 2)]);
    let mut stage = stage.again();
    assert_eq!(stage.in_force("web"), Some((2, 20)));
    assert_eq!(effects(stage.apply(&intent("web", "web", 20))), [(Effect::Unchanged, 2)]);
    let (changes, _) = stage.delete("web").unwrap();
    assert_eq!(changes, [Change::Remove(reference("web"))]);
    let mut stage = stage.again();
    assert_eq!(stage.in_force("web"), None);
    // Whoever remembers generation 2 of the one that is gone does not mistake this one for it.
    assert_eq!(effects(stage.apply(&intent("web", "web", 20))), [(Effect::Created, 3)]);
}

#[test]
fn every_kind_reads_the_same_from_its_manifest_as_from_what_was_written() {
    let mut stage = Stage::new();
    let all = [&intent("web", "web", 10), PROFILE, FREEZE].concat();
    assert_eq!(effects(stage.apply(&all)), [(Effect::Created, 1); 3]);
    let manifests: Vec<_> = stage.files.objects().map(|object| object.manifest(7).unwrap().to_string()).collect();
    for manifest in manifests {
        assert_eq!(effects(stage.apply(&manifest)), [(Effect::Unchanged, 1)], "{manifest}");
    }
}

#[test]
fn of_a_document_with_a_mistake_nothing_is_taken_and_every_mistake_is_named() {
    let mut stage = Stage::new();
    let wrong = intent("b", "b", 10).replace("setWeight: 100", "setWeight: 1000").replace("team: a", "\"-\": a");
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    let document = [&*intent("a", "a", 10), &wrong, &intent("a", "a", 20), pod].concat();
    let Err(Refusal::Invalid(problems)) = stage.apply(&document) else { panic!() };
    let said: Vec<_> = problems.iter().map(|problem| (problem.field.as_str(), problem.message.as_str())).collect();
    for (field, part) in [
        ("spec.strategy.canary.steps[2].setWeight", "100"),
        ("metadata.name", "the document has the object twice"),
        ("kind", "Pod cannot be applied"),
        ("kind", "Secret cannot be applied"),
    ] {
        assert!(said.iter().any(|(at, words)| *at == field && words.contains(part)), "{field}: {said:#?}");
    }
    assert_eq!(stage.files.objects().count(), 0);
    for (document, part) in
        [("", "no object"), ("text", "expected an object"), ("a: [", "YAML"), ("kind: DeploymentIntent", "apiVersion")]
    {
        let refusal = stage.apply(document).unwrap_err();
        assert!(matches!(&refusal, Refusal::Invalid(_)), "{refusal:?}");
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
}

#[test]
fn what_a_file_defines_is_refused_with_the_file_and_counts_when_it_comes_later() {
    let mut stage = Stage::new();
    stage.apply(&intent("web", "web", 10)).unwrap();
    // A file that comes later counts at once, and the object beside it is named as what has no effect.
    let update = stage.files.apply("mesh/web.yaml", Content::Text(intent("web", "web", 30).into()));
    assert_eq!(stage.in_force("web"), Some((0, 30)));
    let said = &update.problems[0];
    assert!(said.message.contains("already defined at mesh/web.yaml:1"), "{said}");
    assert_eq!(&*said.location.as_ref().unwrap().file, "api:deploymentintent/shop/web");
    let refusal = stage.apply(&intent("web", "web", 40)).unwrap_err();
    assert!(matches!(&refusal, Refusal::Owned { place, .. } if &*place.file == "mesh/web.yaml"), "{refusal:?}");
    // A file that is broken keeps what it had.
    stage.files.apply("mesh/web.yaml", Content::Text(intent("web", "web", 30).replace("100", "1000").into()));
    assert_eq!(stage.in_force("web"), Some((0, 30)));
    assert!(matches!(stage.apply(&intent("web", "web", 40)), Err(Refusal::Owned { .. })));
    // Without the file what was applied counts again; and it may be deleted beside a file as well.
    stage.files.apply("mesh/web.yaml", Content::Gone);
    assert_eq!(stage.in_force("web"), Some((1, 10)));
    stage.files.apply("mesh/web.yaml", Content::Text(intent("web", "web", 30).into()));
    let (changes, _) = stage.delete("web").unwrap();
    assert_eq!((changes, stage.in_force("web")), (vec![], Some((0, 30))));
    assert!(matches!(stage.delete("web"), Err(Refusal::Owned { .. })));
    assert!(matches!(stage.delete("other"), Err(Refusal::NotFound(_))));
}

#[test]
fn two_intents_for_a_port_of_one_service_are_refused_wherever_the_other_is() {
    let mut stage = Stage::new();
    stage.files.apply("mesh/web.yaml", Content::Text(intent("web", "web", 30).into()));
    let refusal = stage.apply(&intent("second", "web", 10)).unwrap_err().to_string();
    assert!(refusal.contains("already governed by DeploymentIntent shop/web"), "{refusal}");
    let both = [intent("a", "cart", 10), intent("b", "cart", 10)].concat();
    let refusal = stage.apply(&both).unwrap_err().to_string();
    assert!(refusal.contains("governed by DeploymentIntent shop/a") && refusal.contains("shop/b"), "{refusal}");
    let of_ports = |name: &str, ports: &str| {
        intent(name, "cart", 10).replace("{name: cart}", &format!("{{name: cart, ports: [{ports}]}}"))
    };
    stage.apply(&[of_ports("a", "80"), of_ports("b", "81, 82")].concat()).unwrap();
    assert!(stage.apply(&of_ports("c", "82")).is_err());
    // The one that it replaces is no obstacle.
    stage.apply(&of_ports("a", "80, 83")).unwrap();
}

#[test]
fn whoever_has_seen_another_generation_is_refused() {
    let mut stage = Stage::new();
    let expecting = |document: String, generation: i64| {
        Submission::Apply(Application { expected_generation: Some(generation), ..application(&document) })
    };
    let refused = |answer| matches!(answer, Err(Refusal::Moved { .. }));
    assert!(refused(stage.submit(expecting(intent("web", "web", 10), 4))));
    assert_eq!(effects(stage.submit(expecting(intent("web", "web", 10), 0))), [(Effect::Created, 1)]);
    assert!(refused(stage.submit(expecting(intent("web", "web", 20), 0))));
    assert_eq!(effects(stage.submit(expecting(intent("web", "web", 20), 1))), [(Effect::Changed, 2)]);
    let deletion =
        |generation| Deletion { reference: reference("web"), expected_generation: Some(generation), is_dry_run: false };
    assert!(refused(stage.submit(Submission::Delete(deletion(1)))));
    assert_eq!(effects(stage.submit(Submission::Delete(deletion(2)))), [(Effect::Deleted, 2)]);
    let two = [intent("a", "a", 10), intent("b", "b", 10)].concat();
    assert!(matches!(stage.submit(expecting(two, 0)), Err(Refusal::Invalid(_))));
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let mut stage = Stage::new();
    let dry = Application { is_dry_run: true, ..application(&intent("web", "web", 10)) };
    assert_eq!(effects(stage.submit(Submission::Apply(dry.clone()))), [(Effect::Created, 1)]);
    assert_eq!(stage.in_force("web"), None);
    stage.apply(&intent("web", "web", 20)).unwrap();
    assert_eq!(effects(stage.submit(Submission::Apply(dry))), [(Effect::Changed, 2)]);
    let deletion = Deletion { reference: reference("web"), expected_generation: None, is_dry_run: true };
    assert_eq!(effects(stage.submit(Submission::Delete(deletion))), [(Effect::Deleted, 1)]);
    assert_eq!(stage.again().in_force("web"), Some((1, 20)));
}

#[test]
fn the_object_that_was_asked_for_is_the_one_that_is_taken() {
    let mut stage = Stage::new();
    let only = Application { only: Some(reference("other")), ..application(&intent("web", "web", 10)) };
    let refusal = stage.submit(Submission::Apply(only)).unwrap_err().to_string();
    assert!(refusal.contains("this was to be DeploymentIntent shop/other"), "{refusal}");
}

#[test]
fn without_room_nothing_changes_and_damage_is_named() {
    let mut stage = Stage::new();
    stage.apply(&intent("web", "web", 10)).unwrap();
    let elsewhere = stage.directory.path().join("gone");
    let shelf = std::mem::replace(&mut stage.shelf, Shelf::open(&elsewhere).unwrap());
    std::fs::remove_dir(&elsewhere).unwrap();
    let refusal = stage.apply(&intent("other", "other", 10)).unwrap_err();
    assert!(matches!(refusal, Refusal::NotStored(_)), "{refusal:?}");
    assert_eq!(stage.in_force("other"), None);
    stage.shelf = shelf;
    assert_eq!(stage.in_force("web"), Some((1, 10)));
    let file = stage.directory.path().join("applied.json");
    for (text, part) in
        [("{", "EOF"), ("{}", "no format"), (r#"{"format": 9}"#, "format 9"), (r#"{"format": 1}"#, "list")]
    {
        std::fs::write(&file, text).unwrap();
        let error = Shelf::open(stage.directory.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("applied.json"), "{error}");
    }
}

#[test]
fn others_cannot_read_what_is_kept() {
    let mut stage = Stage::new();
    stage.apply(&intent("web", "web", 10)).unwrap();
    let metadata = std::fs::metadata(stage.directory.path().join("applied.json")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077, 0);
}
