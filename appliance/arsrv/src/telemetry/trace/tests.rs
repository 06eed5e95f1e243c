use super::*;

fn cid() -> Cid {
    Cid::random()
}

#[tokio::test]
async fn steps_taken_for_a_request_are_found_by_its_id_each_inside_the_one_it_is_part_of() {
    let cid = cid();
    let trace = Trace::begin(&cid, None);
    let whole = trace.open(What::Request, "orders");
    scope(Some(whole.inside()), async {
        let mut called = current().unwrap().open(What::Service, "orders.get");
        called.say("worker", "default-1");
        scope(Some(called.inside()), async {
            current().unwrap().open(What::Outgoing, "crm").end(503, true);
        })
        .await;
        called.end(200, false);
    })
    .await;
    whole.end(200, false);
    let view = view(cid.as_str()).unwrap();
    assert!(view.trace.starts_with(cid.as_str()), "{view:?}");
    let find = |what: &str, name: &str| {
        let fits = |it: &&TraceStep| it.what == what && it.name == name;
        view.steps.iter().find(fits).unwrap_or_else(|| panic!("no {what} in {view:?}"))
    };
    let (whole, service) = (find("request", "orders"), find("service", "orders.get"));
    let out = find("outgoing", "crm");
    assert_eq!(
        (whole.parent.as_str(), &service.parent, &out.parent),
        ("", &whole.span, &service.span)
    );
    assert_eq!((out.status, out.failed), (Some(503), true));
    assert_eq!(service.notes["worker"], "default-1");
    assert!(super::view("nobody-knows-this").is_none());
    assert!(current().is_none());
}

#[test]
fn a_callers_trace_is_gone_on_with_and_the_balancers_own_has_no_parent() {
    let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = Trace::begin(&cid(), Some(theirs));
    let step = trace.open(What::Request, "a");
    let out = step.inside().traceparent();
    assert!(out.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{out}");
    assert_eq!(trace.parent, 0x00f0_67aa_0ba9_02b7);
    assert_ne!(out, theirs);
    step.done();
    let cid = cid();
    let own = format!("00-{cid}01020304-00f067aa0ba902b7-00");
    let trace = Trace::begin(&cid, Some(&own));
    assert_eq!(trace.parent, 0);
    assert!(trace.traceparent().starts_with(&format!("00-{cid}01020304-")));
    for bad in ["", "00-1-2-3", &theirs.replacen("00-", "ff-", 1), &format!("{theirs}-x")] {
        assert_eq!(Parent::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_request_has_so_many_steps_and_the_rest_is_counted() {
    let cid = cid();
    let trace = Trace::begin(&cid, None);
    for _ in 0..STEPS + 7 {
        trace.open(What::Outgoing, "crm").done();
    }
    let view = view(cid.as_str()).unwrap();
    assert_eq!((view.steps.len(), view.left_out), (STEPS, 7));
}

#[test]
fn a_step_that_nobody_ended_was_given_up() {
    let cid = cid();
    drop(Trace::begin(&cid, None).open(What::Service, "slow"));
    let view = view(cid.as_str()).unwrap();
    assert!(view.steps[0].failed && view.steps[0].notes["ended"] == "given up", "{view:?}");
}

#[test]
fn what_failed_is_kept_longer_than_what_did_not() {
    let timeline = Timeline {
        rings: Mutex::default(),
        is_exporting: AtomicBool::new(false),
        share: AtomicU64::new(0),
        exporter: RwLock::default(),
    };
    // Not by `begin`: that would push those of other tests out of the ring they share.
    let one = |is_notable| {
        Arc::new(Request {
            cid: cid(),
            trace_id: 1,
            from: 0,
            sampled: false,
            flag: false,
            began: Instant::now(),
            began_us: 0,
            steps: Mutex::default(),
            left_out: AtomicU64::new(0),
            is_notable: AtomicBool::new(is_notable),
        })
    };
    let (good, bad) = (one(false), one(true));
    timeline.keep(Arc::clone(&good));
    timeline.keep(Arc::clone(&bad));
    for _ in 0..KEPT {
        timeline.keep(one(false));
    }
    assert!(timeline.find(good.cid.as_str()).is_empty());
    assert_eq!(timeline.find(bad.cid.as_str()).len(), 1);
    for _ in 0..KEPT + NOTABLE {
        timeline.keep(one(true));
    }
    let rings = locked(&timeline.rings);
    assert_eq!((rings.last.len(), rings.notable.len()), (KEPT, NOTABLE));
}
