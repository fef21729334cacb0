//! Packets that go on while something fails.

use heddle_lab::{Container, PingStream};

use crate::Node;

/// A container on each of two nodes, and a ping every 10 ms from each to the other.
#[derive(Debug)]
pub struct Flow {
    streams: [PingStream; 2],
    _containers: [Container; 2],
}

impl Flow {
    /// Starts one, and returns when it flows.
    pub fn between(one: &Node, other: &Node) -> Self {
        let containers = [one, other].map(|node| node.host.container().unwrap());
        let [here, there] = &containers;
        let stream = |from: &Container, to: &Container| {
            let address = to.addresses()[0];
            // What is sent before neighbours and bridges know each other is not counted.
            from.ping(address, 56).unwrap();
            from.ping_stream(address).unwrap()
        };
        let streams = [stream(here, there), stream(there, here)];
        let flow = Self { streams, _containers: containers };
        flow.goes_on();
        flow
    }

    /// Makes sure that it goes on, now.
    pub fn goes_on(&self) {
        for stream in &self.streams {
            stream.wait_answers(20).unwrap();
        }
    }

    /// Ends it, and makes sure that not one packet was lost.
    pub fn end_without_loss(self) {
        for stream in self.streams {
            let (answered, lost) = stream.finish().unwrap();
            assert!(answered > 0 && lost.is_empty(), "of {answered} packets lost {lost:?}");
        }
    }
}
