//! Continuous traffic between pairs of containers, which a fault must not disturb.

use heddle_lab::{Container, PingStream};

/// A ping every 10 ms for each pair of containers and each direction.
#[derive(Debug)]
pub struct Flows(Vec<PingStream>);

impl Flows {
    /// Starts pings between the containers of each pair, and waits until they are answered.
    pub fn between(pairs: &[(&Container, &Container)]) -> Self {
        let both = pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
        let start = |(from, to): (&Container, &Container)| {
            // Until a hop has resolved its neighbour, the kernel queues few packets and drops the
            // rest.
            from.ping(to.addresses()[0], 56).unwrap();
            from.ping_stream(to.addresses()[0]).unwrap()
        };
        let flows = Self(both.map(start).collect());
        flows.go_on();
        flows
    }

    /// Waits for more answers in each direction.
    pub fn go_on(&self) {
        for stream in &self.0 {
            stream.wait_answers(20).unwrap();
        }
    }

    /// Ends the traffic, and asserts that no packet was lost.
    pub fn lost_nothing(self) {
        self.go_on();
        for stream in self.0 {
            let pings = stream.finish().unwrap();
            assert!(pings.lost.is_empty(), "{pings:?}");
        }
    }
}
