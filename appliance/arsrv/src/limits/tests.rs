use serde_json::json;

use super::*;

/// 12:00:30 UTC of some day.
const NOON: u64 = 1_800_014_430_000;

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn limits(before: &Limits, definition: &str) -> Limits {
    let channel =
        json!({"url_path": "/a", "service": "a", "rate_limit": {"definition": definition}});
    Limits::plan(&World::of(1, &[(Kind::Channel, "a", channel)]), before)
}

fn only(limits: &Limits) -> &Arc<Limiter> {
    limits.0.values().next().unwrap()
}

/// How many of `tries` requests may come in.
fn passes(limiter: &Limiter, addr: &str, ms: u64, tries: u32) -> u32 {
    let addr = address(addr);
    (0..tries).map(|_| u32::from(limiter.take(addr, at(ms)).is_ok())).sum()
}

#[test]
fn a_window_begins_with_the_minute_and_lets_in_exactly_so_many() {
    let limits = limits(&Limits::default(), "*=5/m");
    let limiter = only(&limits);
    assert_eq!(passes(limiter, "192.0.2.1", NOON, 4), 4);
    assert_eq!(passes(limiter, "192.0.2.2", NOON + 29_999, 4), 1);
    assert_eq!(passes(limiter, "192.0.2.1", NOON + 30_000, 9), 5);
}

#[test]
fn standing_says_what_is_left_and_when_more_comes() {
    let limits = limits(&Limits::default(), "*=2/m");
    let limiter = only(&limits);
    let standing =
        |remaining| Some(Standing { limit: 2, remaining, reset: Duration::from_secs(30) });
    assert_eq!(limiter.take(None, at(NOON)), Ok(standing(1)));
    assert_eq!(limiter.take(None, at(NOON)), Ok(standing(0)));
    assert_eq!(limiter.take(None, at(NOON)), Err(standing(0)));
    limiter.give_back(None, at(NOON));
    assert_eq!(limiter.take(None, at(NOON)), Ok(standing(0)));
}

#[test]
fn who_fits_no_line_may_not_come_in() {
    let limits = limits(&Limits::default(), "10.0.0.0/8=*\n192.0.2.9=none");
    let limiter = only(&limits);
    assert_eq!(limiter.take(address("10.1.1.1"), at(NOON)), Ok(None));
    assert_eq!(limiter.take(address("192.0.2.9"), at(NOON)), Err(None));
    assert_eq!(limiter.take(address("198.51.100.1"), at(NOON)), Err(None));
    assert_eq!(limiter.take(None, at(NOON)), Err(None));
}

#[test]
fn each_address_is_counted_for_itself_and_an_ipv6_network_as_one() {
    let limits = limits(&Limits::default(), "*=2/m each");
    let limiter = only(&limits);
    assert_eq!(passes(limiter, "192.0.2.1", NOON, 5), 2);
    assert_eq!(passes(limiter, "192.0.2.2:4711", NOON, 5), 2);
    assert_eq!(passes(limiter, "[2001:db8::1]:1", NOON, 5), 2);
    assert_eq!(passes(limiter, "2001:db8::ffff:2", NOON, 5), 0);
    assert_eq!(passes(limiter, "2001:db8:0:1::1", NOON, 5), 2);
}

#[test]
fn a_flood_of_addresses_takes_bounded_memory_and_gets_less() {
    let limits = limits(&Limits::default(), "*=1/h each");
    let limiter = only(&limits);
    let most = u32::try_from(ADDRESSES + SHARED).unwrap();
    let in_all: u32 = (0..200_000_u32)
        .map(|n| {
            let addr = IpAddr::V4((0x0a00_0000 + n).into());
            u32::from(limiter.take(Some(addr), at(NOON)).is_ok())
        })
        .sum();
    assert!(in_all <= most, "{in_all}");
    let used = limiter.counters[0].used.lock().unwrap();
    assert_eq!((used.each.len(), used.shared.len()), (ADDRESSES, SHARED));
}

#[test]
fn counts_go_on_when_a_limit_is_changed_and_begin_anew_when_the_window_is_another() {
    let first = limits(&Limits::default(), "*=5/h");
    assert_eq!(passes(only(&first), "192.0.2.1", NOON, 3), 3);
    let raised = limits(&first, "10.0.0.0/8=1/m\n*=7/h");
    assert_eq!(passes(only(&raised), "192.0.2.1", NOON, 9), 4);
    let other = limits(&raised, "*=2/m");
    assert_eq!(passes(only(&other), "192.0.2.1", NOON, 9), 2);
}

#[test]
fn a_clock_set_back_a_little_gives_nothing_away_and_a_lot_locks_nobody_out() {
    let limits = limits(&Limits::default(), "*=1/m");
    let limiter = only(&limits);
    assert_eq!(passes(limiter, "192.0.2.1", NOON, 2), 1);
    assert_eq!(passes(limiter, "192.0.2.1", NOON - 40_000, 2), 0);
    assert_eq!(passes(limiter, "192.0.2.1", NOON - 86_400_000, 2), 1);
}

#[test]
fn what_is_refused_by_one_limit_is_not_counted_on_the_others() {
    let first = limits(&Limits::default(), "*=10/m");
    let second = limits(&Limits::default(), "*=1/m");
    for round in 0..5 {
        let mut ticket = Ticket::new(None, at(NOON));
        ticket.take(Some(only(&first))).unwrap();
        let ended = ticket.take(Some(only(&second)));
        assert_eq!(ended.is_ok(), round == 0);
        assert_eq!(
            ticket.tightest.map(|standing| (standing.limit, standing.remaining)),
            Some((1, 0))
        );
    }
    assert_eq!(passes(only(&first), "192.0.2.1", NOON, 20), 9);
    assert_eq!(only(&second).refused.load(Ordering::Relaxed), 4);
}

#[test]
fn many_threads_together_get_exactly_what_is_allowed() {
    let limits = limits(&Limits::default(), "*=1000/d");
    let limiter = only(&limits);
    let in_all: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| passes(limiter, "192.0.2.1", NOON, 500))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(in_all, 1000);
}

#[test]
fn a_tier_is_counted_for_each_object_that_names_it() {
    let limit = json!({"tier": "gold"});
    let channel = |path| json!({"url_path": path, "service": "a", "rate_limit": limit});
    let world = World::of(
        1,
        &[
            (Kind::QuotaTier, "gold", json!({"definition": "*=1/m"})),
            (Kind::Channel, "a", channel("/a")),
            (Kind::Channel, "b", channel("/b")),
        ],
    );
    let limits = Limits::plan(&world, &Limits::default());
    for limiter in limits.0.values() {
        assert_eq!(passes(limiter, "192.0.2.1", NOON, 3), 1);
    }
    // A tier that is gone lets nobody in.
    let world = World::of(2, &[(Kind::Channel, "a", channel("/a"))]);
    assert_eq!(passes(only(&Limits::plan(&world, &limits)), "192.0.2.1", NOON, 3), 0);
}
