//! Traffic that a fault is no business of.

use heddle_lab::{Container, PingStream};

/// A ping every 10 ms for each pair of containers and direction.
#[derive(Debug)]
pub struct Flows(Vec<PingStream>);

impl Flows {
    /// Has containers talk to each other, and waits until they do.
    pub fn between(pairs: &[(&Container, &Container)]) -> Self {
        let both = pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
        let start = |(from, to): (&Container, &Container)| {
            // Until each hop has resolved its neighbours, little is kept waiting.
            from.ping(to.addresses()[0], 56).unwrap();
            from.ping_stream(to.addresses()[0]).unwrap()
        };
        let flows = Self(both.map(start).collect());
        flows.go_on();
        flows
    }

    /// Waits until each has had some more answers.
    pub fn go_on(&self) {
        for stream in &self.0 {
            stream.wait_answers(20).unwrap();
        }
    }

    /// Ends them. None may have lost a packet.
    pub fn lost_nothing(self) {
        self.go_on();
        for stream in self.0 {
            let pings = stream.finish().unwrap();
            assert!(pings.lost.is_empty(), "{pings:?}");
        }
    }
}
