use super::*;

fn backend(name: &str, is_local: bool, rtt_us: u64, in_flight: u64) -> Backend {
    let thresholds = Thresholds { rise: 2, fall: 2 };
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    let backend =
        Backend::new(name.to_owned(), address, is_local, thresholds, Arc::new(Notify::new()));
    backend.rtt_ns.store(rtt_us * 1000, Relaxed);
    backend.in_flight.store(in_flight, Relaxed);
    backend
}

#[test]
fn the_local_core_comes_first_and_then_the_nearest_with_least_to_do() {
    let mut order = [
        backend("far", false, 900, 0),
        backend("near and busy", false, 300, 9),
        backend("near", false, 300, 0),
        backend("local", true, 5000, 50),
    ];
    order.sort_by_key(Backend::score);
    let names: Vec<_> = order.iter().map(Backend::name).collect();
    assert_eq!(names, ["local", "near", "far", "near and busy"]);
}

#[test]
fn round_trip_time_is_smoothed() {
    let backend = backend("one", true, 0, 0);
    backend.probe_succeeded(Duration::from_micros(800));
    assert_eq!(backend.view().rtt, Some(Duration::from_micros(800)));
    backend.probe_succeeded(Duration::from_micros(1600));
    assert_eq!(backend.view().rtt, Some(Duration::from_micros(900)));
}
