use serde_json::json;

use super::*;

fn file(name: &str, source: &str) -> ModuleSource {
    ModuleSource { file_name: name.to_owned(), source: source.to_owned() }
}

/// A plan that leaves packages and groups as they are.
fn plan(
    present: &Deployed,
    files: &[ModuleSource],
    gone: &[String],
    found: &[FoundService],
    origin: &str,
) -> Result<DeployPlan, LoadFault> {
    let new = New { files, gone, packages: &Packages::Keep, group: None, origin };
    super::plan(present, &new, found)
}

fn requirements(text: &str, version: &str) -> Requirements {
    let lock = serde_json::json!([{"name": "foo", "version": version,
        "file": format!("foo-{version}-py3-none-any.whl"), "sha256": sha256_hex(version.as_bytes())}]);
    Requirements { text: text.to_owned(), lock: serde_json::from_value(lock).unwrap() }
}

#[test]
fn packages_are_part_of_a_version_and_stay_until_others_are_asked_for() {
    let mut present = photos();
    let old = requirements("foo", "1");
    present.modules.get_mut("photos").unwrap().1.requirements = Some(old.clone());
    let files = [file("photos.py", "old")];
    assert_eq!(same_requirements(&files, "foo", &present), Some(&old));
    assert_eq!(same_requirements(&files, "foo>=2", &present), None);
    let both = [file("photos.py", "old"), file("albums.py", "x")];
    assert_eq!(same_requirements(&both, "foo", &present), None);
    let services = [found("photos.get", "photos", "Get"), found("photos.put", "photos", "Put")];
    let put = |packages: &Packages, files: &[ModuleSource]| {
        let new = New { files, gone: &[], packages, group: None, origin: "api" };
        let plan = super::plan(&present, &new, &services).unwrap();
        let version = plan.modules.first().map(|module| module.version).unwrap();
        let spec = plan.changes.iter().find_map(|change| match change {
            Change::Put { kind: Kind::Module, spec, .. } => Some(spec["requirements"].clone()),
            _ => None,
        });
        (version, spec, changed(files, packages, &present).len())
    };
    assert_eq!(put(&Packages::Keep, &files), (4, None, 0));
    assert_eq!(put(&Packages::These(old.clone()), &files), (4, None, 0));
    let new = requirements("foo", "2");
    let as_json = serde_json::to_value(&new).unwrap();
    assert_eq!(put(&Packages::These(new), &files), (5, Some(as_json), 1));
    assert_eq!(put(&Packages::Without, &files), (5, Some(serde_json::Value::Null), 1));
    // A new source keeps what was there.
    let as_json = serde_json::to_value(&old).unwrap();
    assert_eq!(put(&Packages::Keep, &[file("photos.py", "new")]), (5, Some(as_json), 1));
}

#[test]
fn services_move_to_the_group_that_is_asked_for_and_new_ones_join_their_module() {
    let services = [
        found("photos.get", "photos", "Get"),
        found("photos.put", "photos", "Put"),
        found("photos.new", "photos", "New"),
    ];
    let files = [file("photos.py", "new")];
    let groups = |group: Option<&str>| {
        let new = New { files: &files, gone: &[], packages: &Packages::Keep, group, origin: "api" };
        let plan = super::plan(&photos(), &new, &services).unwrap();
        let groups = plan.changes.iter().filter_map(|change| match change {
            Change::Put { kind: Kind::Service, name, spec, .. } => {
                Some(format!("{name} {}", spec["group"].as_str().unwrap()))
            }
            _ => None,
        });
        groups.collect::<Vec<_>>()
    };
    assert_eq!(groups(None), ["photos.new slow"]);
    assert_eq!(groups(Some("fast")), ["photos.get fast", "photos.put fast", "photos.new fast"]);
}

fn found(name: &str, module: &str, class: &str) -> FoundService {
    serde_json::from_value(json!({"name": name, "module": module, "class": class, "line": 3}))
        .unwrap()
}

/// `photos` version 4 with services `photos.get` (limited by an admin) and `photos.put`, both at revision 7.
fn photos() -> Deployed {
    let module = ModuleSpec {
        file_name: "photos.py".to_owned(),
        source: "old".to_owned(),
        sha256: sha256_hex(b"old"),
        version: 4,
        origin: "api".to_owned(),
        requirements: None,
    };
    let service = |class: &str| ServiceSpec {
        module: "photos".to_owned(),
        class: class.to_owned(),
        summary: String::new(),
        is_active: false,
        timeout_ms: Some(5),
        max_concurrency: None,
        group: "slow".to_owned(),
        rate_limit: None,
    };
    Deployed {
        modules: [("photos".to_owned(), (7, module))].into(),
        services: [
            ("photos.get".to_owned(), (7, service("Get"))),
            ("photos.put".to_owned(), (7, service("Put"))),
        ]
        .into(),
        last_versions: BTreeMap::new(),
    }
}

fn summary(plan: &DeployPlan) -> Vec<String> {
    let each = plan.changes.iter().map(|change| match change {
        Change::Put { kind, name, expect, .. } => format!("put {kind}/{name} {expect:?}"),
        Change::Delete { kind, name, expect } => format!("delete {kind}/{name} {expect:?}"),
        other => format!("{other:?}"),
    });
    each.collect()
}

#[test]
fn a_first_deployment_makes_module_and_services() {
    let files = [file("photos.py", "new")];
    let services = [found("photos.get", "photos", "Get")];
    let plan = plan(&Deployed::default(), &files, &[], &services, "api").unwrap();
    assert_eq!(summary(&plan), ["put Module/photos Absent", "put Service/photos.get Absent"]);
    assert_eq!(
        plan.modules,
        [DeployedModule { name: "photos".to_owned(), version: 1, changed: true }]
    );
}

#[test]
fn a_new_version_keeps_what_an_admin_set_and_drops_vanished_services() {
    let files = [file("photos.py", "new")];
    let services = [found("photos.get", "photos", "Fetch")];
    let plan = plan(&photos(), &files, &[], &services, "pickup").unwrap();
    assert_eq!(
        summary(&plan),
        [
            "put Module/photos Revision(7)",
            "put Service/photos.get Revision(7)",
            "delete Service/photos.put Revision(7)"
        ]
    );
    assert_eq!(plan.removed, ["photos.put"]);
    assert_eq!(plan.modules.first().map(|module| module.version), Some(5));
    let Some(Change::Put { spec, .. }) = plan.changes.get(1) else { panic!("{plan:?}") };
    assert_eq!(
        *spec,
        json!({"module": "photos", "class": "Fetch", "summary": "", "is_active": false,
            "timeout_ms": 5, "group": "slow"})
    );
}

#[test]
fn an_unchanged_source_makes_no_new_version() {
    let present = photos();
    let files = [file("photos.py", "old")];
    assert_eq!(changed(&files, &Packages::Keep, &present), Vec::<&ModuleSource>::new());
    let services = [found("photos.get", "photos", "Get"), found("photos.put", "photos", "Put")];
    let plan = plan(&present, &files, &[], &services, "api").unwrap();
    assert_eq!(plan.changes, []);
    assert_eq!(
        plan.modules,
        [DeployedModule { name: "photos".to_owned(), version: 4, changed: false }]
    );
}

#[test]
fn a_module_that_comes_back_goes_on_counting() {
    let present =
        Deployed { last_versions: [("photos".to_owned(), 9)].into(), ..Deployed::default() };
    let plan = plan(&present, &[file("photos.py", "new")], &[], &[], "api").unwrap();
    assert_eq!(plan.modules.first().map(|module| module.version), Some(10));
}

#[test]
fn a_removed_module_takes_its_services_along_and_no_others() {
    let mut present = photos();
    let (revision, mut other) = present.services.get("photos.get").unwrap().clone();
    other.module = "orders".to_owned();
    present.services.insert("orders.get".to_owned(), (revision, other));
    let services = [found("orders.get", "orders", "Get")];
    let plan = plan(&present, &[], &["photos".to_owned()], &services, "api").unwrap();
    assert_eq!(
        summary(&plan),
        [
            "delete Service/photos.get Revision(7)",
            "delete Service/photos.put Revision(7)",
            "delete Module/photos Revision(7)"
        ]
    );
}

#[test]
fn a_service_of_another_module_is_refused_with_its_name() {
    let services = [found("photos.get", "photos", "Get"), found("photos.get", "albums", "Get")];
    let fault = plan(&photos(), &[file("albums.py", "new")], &[], &services, "api").unwrap_err();
    assert_eq!(
        sentence(&fault),
        "albums.py line 3: service `photos.get` is already provided by module `photos`; give one of \
         them another name"
    );
}

#[test]
fn names_of_the_producer_are_refused_for_services_and_modules() {
    let services = [found("arsrv.get", "photos", "Get")];
    let fault = plan(&photos(), &[file("photos.py", "new")], &[], &services, "api").unwrap_err();
    assert_eq!(
        sentence(&fault),
        "photos.py line 3: name `arsrv.get` is reserved: names that start with `AR` or with the name \
         of an ARINT component are the producer's; choose another"
    );
    assert!(check_files(&[file("arint.py", "")]).is_err());
    assert_eq!(
        sentence(&check_files(&[file("zato.py", "")]).unwrap_err()),
        "zato.py: a module cannot be called `zato`: that is the package services import from; choose \
         another"
    );
}

#[test]
fn files_that_cannot_be_modules_are_refused_before_anything_is_tried() {
    #[track_caller]
    fn check(files: &[ModuleSource], refused: &str) {
        assert_eq!(sentence(&check_files(files).unwrap_err()), refused);
    }
    check(&[], "there is no file in the deployment");
    check(
        &[file("my-photos.py", "")],
        "my-photos.py: `my-photos.py` is not the name of a Python module: letters, digits and `_`, \
         then `.py`, were expected",
    );
    check(
        &[file("../photos.py", "")],
        "../photos.py: `../photos.py` is not the name of a Python module: letters, digits and `_`, \
         then `.py`, were expected",
    );
    check(&[file("a.py", ""), file("a.py", "")], "`a.py` is in the deployment twice");
    check(
        &[file("a.py", &"x".repeat(ModuleSpec::MAX_SOURCE + 1))],
        "a.py: 4194305 bytes are above the 4194304 allowed",
    );
    assert_eq!(check_files(&[file("a.py", ""), file("b.py", "")]).unwrap(), ["a", "b"]);
}

#[test]
fn a_fault_is_one_sentence_with_file_and_line_where_they_are_known() {
    let mut fault = LoadFault {
        reason: "no module named `x`".to_owned(),
        file: "photos.py".to_owned(),
        line: 12,
        traceback: String::new(),
        exit_code: None,
    };
    assert_eq!(sentence(&fault), "photos.py line 12: no module named `x`");
    fault.line = 0;
    assert_eq!(sentence(&fault), "photos.py: no module named `x`");
    fault.file.clear();
    assert_eq!(sentence(&fault), "no module named `x`");
}
