use std::net::{IpAddr, Ipv4Addr};

use super::*;

const BUFFER: usize = 16 << 20;

fn source(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// Returns true for addresses below 100, which are peers.
fn is_peer(address: IpAddr) -> bool {
    (1..100).any(|number| source(number) == address)
}

fn arrival(number: u8, dropped: Option<u32>) -> Arrival {
    Arrival { from: source(number), length: 1000, count: 1, dropped }
}

/// Lanes with a simulated clock.
struct Fixture {
    lanes: Lanes,
    now: Instant,
    /// Number of datagrams dropped from the shared lane.
    dropped: u32,
}

impl Fixture {
    fn new() -> Self {
        Self { lanes: Lanes::new(true), now: Instant::now(), dropped: 0 }
    }

    /// Overflows the shared lane with datagrams of these sources in turn, until the assignment
    /// changes. Returns the change.
    fn overflow(&mut self, sources: &[u8]) -> Option<Change> {
        self.dropped += 1;
        sources.iter().cycle().take(SAMPLE / 1000).find_map(|number| {
            self.lanes.received(SHARED, arrival(*number, Some(self.dropped)), self.now);
            self.decide()
        })
    }

    /// Decides, and applies the decision as the kernel would.
    fn decide(&mut self) -> Option<Change> {
        let change = self.lanes.decide(is_peer, BUFFER, self.now);
        assert_eq!(self.lanes.is_steered(), change.is_none());
        self.lanes.on_steered();
        change
    }

    /// Reads the shared lane to its end.
    fn drain(&mut self) {
        self.lanes.empty(SHARED, self.now);
        self.lanes.awake().count();
    }

    fn steering(&self) -> Vec<(IpAddr, usize)> {
        self.lanes.steering().collect()
    }

    /// Advances the clock, and returns the change.
    fn wait(&mut self, time: Duration) -> Option<Change> {
        self.now += time;
        self.decide()
    }

    /// Returns the next lanes to be read.
    fn turns(&mut self, count: usize) -> Vec<usize> {
        std::iter::from_fn(|| self.lanes.next()).take(count).collect()
    }
}

#[test]
fn shared_lane_without_overflow_isolates_nobody() {
    let mut fixture = Fixture::new();
    for _ in 0..2 * SAMPLE / 1000 {
        fixture.lanes.received(SHARED, arrival(1, None), fixture.now);
        assert_eq!(fixture.lanes.decide(is_peer, BUFFER, fixture.now), None);
    }
    assert_eq!(fixture.steering(), []);
    assert_eq!(fixture.turns(2), [SHARED, SHARED]);
}

#[test]
fn overflow_without_other_lanes_takes_no_sample() {
    let (mut lanes, now) = (Lanes::new(false), Instant::now());
    for address in 0..100_000u32 {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + address).into();
        lanes.received(SHARED, Arrival { from, length: 1000, count: 1, dropped: Some(1) }, now);
    }
    assert!(lanes.sample.is_none());
    assert_eq!(lanes.decide(is_peer, BUFFER, now), None);
    assert!(lanes.is_steered());
    assert_eq!(lanes.steering().count(), 0);
}

#[test]
fn overflow_isolates_the_largest_source_only() {
    let mut fixture = Fixture::new();
    // The first source has four of ten parts.
    let changes = fixture.overflow(&[1, 2, 1, 3, 1, 4, 1, 5, 2, 6]);
    assert_eq!(changes, Some(Change::Isolated(source(1))));
    assert_eq!(fixture.steering(), [(source(1), STRANGERS + 1)]);
    // Its earlier datagrams are no reason to isolate others.
    assert_eq!(fixture.overflow(&[1, 2]), None);
    // The next overflow is another source's.
    fixture.drain();
    assert_eq!(fixture.overflow(&[2, 3, 2, 4]), Some(Change::Isolated(source(2))));
    assert_eq!(fixture.steering(), [(source(1), STRANGERS + 1), (source(2), STRANGERS + 2)]);
}

#[test]
fn overflow_by_many_equal_sources_isolates_nobody() {
    let mut fixture = Fixture::new();
    let sources: Vec<_> = (0..=u8::try_from(PART).unwrap()).collect();
    assert_eq!(fixture.overflow(&sources), None);
    assert_eq!(fixture.steering(), []);
}

#[test]
fn isolated_lane_waits_for_earlier_datagrams() {
    let mut fixture = Fixture::new();
    fixture.overflow(&[1]);
    let lane = STRANGERS + 1;
    assert_eq!(fixture.lanes.awake().collect::<Vec<_>>(), [SHARED]);
    assert!(!fixture.turns(20).contains(&lane));
    // Until the shared lane has been read to its end,
    fixture.drain();
    assert_eq!(fixture.lanes.awake().collect::<Vec<_>>(), [SHARED, lane]);
    assert!(fixture.turns(20).contains(&lane));
    // or a whole buffer's worth has been read from it.
    fixture.overflow(&[2]);
    let calls = BUFFER / (1000 + OVERHEAD);
    for _ in 0..calls {
        fixture.lanes.received(SHARED, arrival(3, None), fixture.now);
    }
    assert!(!fixture.turns(20).contains(&(lane + 1)));
    fixture.lanes.received(SHARED, arrival(3, None), fixture.now);
    assert!(fixture.turns(20).contains(&(lane + 1)));
}

#[test]
fn lanes_take_turns_with_most_for_the_shared_one() {
    let mut fixture = Fixture::new();
    fixture.overflow(&[1]);
    fixture.drain();
    fixture.overflow(&[2]);
    fixture.drain();
    let round = [&[SHARED; TURNS][..], &[STRANGERS + 1, STRANGERS + 2]].concat();
    let begin = fixture.turns(100).iter().position(|&lane| lane == STRANGERS + 2).unwrap() + 1;
    fixture.lanes.turn = Turn::default();
    assert!(begin <= round.len());
    assert_eq!(fixture.turns(2 * round.len()), [&round[..], &round[..]].concat());
    // An empty lane has no turn.
    fixture.lanes.empty(SHARED, fixture.now);
    assert!(!fixture.lanes.is_last(STRANGERS + 1));
    assert!(fixture.turns(9).iter().all(|&lane| lane > STRANGERS));
    fixture.lanes.empty(STRANGERS + 2, fixture.now);
    assert!(fixture.lanes.is_last(STRANGERS + 1));
    fixture.lanes.empty(STRANGERS + 1, fixture.now);
    assert_eq!(fixture.lanes.next(), None);
    assert_eq!(fixture.lanes.awake().count(), 3);
    assert!(fixture.lanes.next().is_some());
}

#[test]
fn busy_lane_does_not_starve_others() {
    let mut fixture = Fixture::new();
    fixture.overflow(&[1]);
    fixture.drain();
    let lane = STRANGERS + 1;
    let mut read = Vec::new();
    for _ in 0..6 {
        let next = fixture.lanes.next().unwrap();
        read.push(next);
        if next == SHARED {
            fixture.lanes.empty(SHARED, fixture.now);
        } else {
            fixture.lanes.received(lane, arrival(1, None), fixture.now);
        }
    }
    assert!(read.is_sorted_by(|before, next| before != next), "{read:?}");
}

#[test]
fn source_is_released_after_calm_period() {
    let mut fixture = Fixture::new();
    fixture.overflow(&[1]);
    fixture.drain();
    let lane = STRANGERS + 1;
    assert_eq!(fixture.wait(CALM / 2), None);
    // The overflow goes on.
    assert_eq!(fixture.lanes.received(lane, arrival(1, Some(5)), fixture.now), 5);
    assert_eq!(fixture.lanes.received(lane, arrival(1, Some(5)), fixture.now), 0);
    assert_eq!(fixture.wait(CALM / 2), None);
    assert_eq!(fixture.wait(CALM / 2), Some(Change::Released(vec![source(1)])));
    assert_eq!(fixture.steering(), []);
    // Datagrams still in its lane come before newer ones.
    assert_eq!(fixture.turns(3), [lane; 3]);
    fixture.lanes.empty(lane, fixture.now);
    assert_eq!(fixture.turns(1), [SHARED]);
    // Datagrams may still have been on their way.
    fixture.drain();
    assert!(fixture.turns(20).contains(&lane));
    fixture.wait(LINGER);
    fixture.lanes.empty(lane, fixture.now);
    assert_eq!(fixture.lanes.awake().collect::<Vec<_>>(), [SHARED]);
    // The lane is free for the next source.
    fixture.overflow(&[9]);
    assert_eq!(fixture.steering(), [(source(9), lane)]);
}

#[test]
fn lane_is_kept_until_the_kernel_steers_elsewhere() {
    let mut fixture = Fixture::new();
    fixture.overflow(&[1]);
    fixture.drain();
    let lane = STRANGERS + 1;
    fixture.now += CALM;
    let change = fixture.lanes.decide(is_peer, BUFFER, fixture.now);
    assert_eq!(
        (change, fixture.lanes.is_steered()),
        (Some(Change::Released(vec![source(1)])), false)
    );
    // The kernel refused: datagrams still arrive in the lane, so it has no priority.
    assert_eq!(fixture.turns(1), [SHARED]);
    fixture.now += LINGER;
    fixture.lanes.empty(lane, fixture.now);
    assert_eq!(fixture.lanes.awake().collect::<Vec<_>>(), [SHARED, lane]);
    fixture.lanes.on_steered();
    assert_eq!(fixture.turns(1), [lane]);
    fixture.lanes.empty(lane, fixture.now);
    assert_eq!(fixture.lanes.awake().collect::<Vec<_>>(), [SHARED]);
}

#[test]
fn strangers_share_one_lane() {
    let mut fixture = Fixture::new();
    for stranger in 100..=100 + u8::try_from(MAX_STRANGERS).unwrap() {
        assert_eq!(fixture.overflow(&[stranger]), Some(Change::Isolated(source(stranger))));
        fixture.drain();
    }
    let steering = fixture.steering();
    assert_eq!(steering.len(), MAX_STRANGERS);
    assert!(steering.iter().all(|&(_, lane)| lane == STRANGERS));
    // The oldest of them has been evicted.
    assert_eq!(steering[0].0, source(101));
    let peers = 1..u8::try_from(LANES - STRANGERS).unwrap();
    for peer in peers.clone() {
        assert_eq!(fixture.overflow(&[peer]), Some(Change::Isolated(source(peer))));
        fixture.drain();
    }
    // There is no lane left.
    assert_eq!(fixture.overflow(&[peers.end]), None);
}

#[test]
fn changed_peers_move_sources_out_of_wrong_lanes() {
    let mut fixture = Fixture::new();
    for number in [1, 2, 100, 101] {
        fixture.overflow(&[number]);
        fixture.drain();
    }
    assert_eq!(fixture.lanes.review(is_peer, fixture.now), None);
    // The first stranger has become a peer, and the first peer has left.
    let is_peer = |address| address == source(2) || address == source(100);
    let change = fixture.lanes.review(is_peer, fixture.now);
    let released = Change::Released(vec![source(100), source(1)]);
    assert_eq!((change, fixture.lanes.is_steered()), (Some(released), false));
    assert_eq!(fixture.steering(), [(source(101), STRANGERS), (source(2), STRANGERS + 2)]);
    assert_eq!(fixture.lanes.review(is_peer, fixture.now), None);
}
