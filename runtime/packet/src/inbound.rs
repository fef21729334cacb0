//! Carries packets from the peers to the device.

use std::borrow::Cow;
use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{info, warn};

use heddle_core::rate::Bucket;

use crate::Failure;
use crate::datagrams::Datagram;
use crate::forwarding::{Decap, Inbound};
use crate::gro::Coalescer;
use crate::headers::Inner;
use crate::icmp::{self, Message};
use crate::lanes::{Change, Lanes};
use crate::message::Outgoing;
use crate::notice::Notices;
use crate::numbers::saturating_u32;
use crate::sender::Sender;
use crate::shared::{Shared, Wake, icmp_limit};
use crate::socket::{Received, Socket};
use crate::table::Table;
use crate::transformed::Transformed;
use crate::ttl;
use crate::tun::Tun;

/// The maximum number of bytes that one call receives: datagrams that the kernel coalesced, or a
/// single one.
const LONGEST: usize = 65_536;

/// The maximum number of receive calls in a batch.
const CALLS: usize = 4;

/// Pause after an error of the socket.
const PAUSE: Duration = Duration::from_millis(10);

/// A receiving thread.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    /// The index of its socket.
    index: usize,
    tun: Arc<Tun>,
    table: Arc<Table>,
    decap: Decap,
    coalescer: Coalescer,
    sender: Sender,
    limit: Bucket,
    notices: Notices<Errno>,
    /// The assignment of receive buffers to sources, and the order in which they are read.
    lanes: Lanes,
    lane_notices: Notices<&'static str>,
    accepted: Accepted,
}

/// Numbers to add to the counters once per batch: adding for each packet would be measurable.
#[derive(Default)]
struct Accepted {
    packets: usize,
    bytes: usize,
}

/// The sender of a datagram.
struct Origin<'a> {
    table: &'a Table,
    /// The peers with the address that it came from; at least one.
    peers: &'a [u32],
    address: IpAddr,
    /// The time of reception.
    now: Instant,
}

impl Origin<'_> {
    /// Returns true if one of the peers may send this packet.
    fn sends(&self, packet: &[u8]) -> bool {
        let source = Inner::parse(packet).map(|inner| inner.source);
        source.is_ok_and(|source| self.table.owner(self.peers, source).is_some())
    }
}

/// Datagrams as received.
struct Batch {
    bytes: Vec<u8>,
    /// The result of each call, and where its datagrams begin in `bytes`.
    received: Vec<(usize, Received)>,
}

impl Receiver {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, tun: Arc<Tun>) -> Self {
        Self {
            index,
            coalescer: Coalescer::new(tun.udp),
            tun,
            table: Arc::default(),
            decap: Decap::Nobody,
            sender: Sender::new(Arc::clone(&shared)),
            limit: icmp_limit(),
            notices: Notices::default(),
            lanes: Lanes::new(shared.sockets[index].has_lanes()),
            lane_notices: Notices::default(),
            accepted: Accepted::default(),
            shared,
        }
    }

    /// Carries packets until the path stops.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let socket = &shared.sockets[self.index];
        let mut batch = Batch::new();
        while shared.stop.wait_for_any(self.lanes.awake().map(|lane| socket.lane(lane)))
            != Wake::Stop
        {
            // Read everything that is available before waiting again.
            while let Some(lane) = self.lanes.next() {
                let read = batch.read(socket, lane);
                let now = Instant::now();
                self.renew(now);
                self.carry(&mut batch, now);
                self.share(lane, &batch, now);
                match read {
                    Err(errno) => {
                        self.trouble(errno);
                        break;
                    }
                    Ok(_) if shared.stop.is_requested() => break,
                    Ok(More::Yes) => {}
                    // The producer may be waiting for this CPU; one yield is cheaper than a poll
                    // and a wake-up. It happens once, since the next read then finds nothing.
                    Ok(More::No) if !batch.received.is_empty() => {
                        if self.lanes.is_last(lane) {
                            thread::yield_now();
                        }
                    }
                    Ok(More::No) => self.lanes.empty(lane, now),
                }
            }
        }
    }
}

/// Isolation of sources in lanes.
impl Receiver {
    /// Records what was read from a lane. Isolates a source that takes too much, and releases one
    /// that no longer does.
    fn share(&mut self, lane: usize, batch: &Batch, now: Instant) {
        let mut dropped = 0;
        for (_, received) in &batch.received {
            dropped += self.lanes.received(lane, received.arrival(), now);
        }
        self.shared.tally.buffer_full.add(dropped);
        let buffer = self.shared.sockets[self.index].buffer();
        let table = &self.table;
        let is_peer = |source| !table.senders(source).is_empty();
        if let Some(change) = self.lanes.decide(is_peer, buffer, now) {
            self.note(change, now);
        }
        if !self.lanes.is_steered() {
            self.steer(now);
        }
    }

    /// Applies the current assignment of lanes in the kernel. If that fails, it is retried after
    /// the next batch.
    fn steer(&mut self, now: Instant) {
        let socket = &self.shared.sockets[self.index];
        match socket.steer(self.lanes.steering()) {
            Ok(()) => self.lanes.on_steered(),
            Err(errno) => {
                if let Some(unsaid) = self.lane_notices.due("refused", now) {
                    warn!(
                        local = %socket.local(), error = %errno.desc(), unsaid,
                        "packets: kernel refused to steer datagrams; retrying"
                    );
                }
            }
        }
    }

    /// Counts and logs a change of lanes.
    fn note(&mut self, change: Change, now: Instant) {
        match change {
            Change::Isolated(source) => {
                self.shared.tally.isolated.one();
                if let Some(unsaid) = self.lane_notices.due("isolated", now) {
                    let is_peer = !self.table.senders(source).is_empty();
                    warn!(
                        %source, is_peer, unsaid,
                        "packets: source overflowed the shared receive buffer; moved it to a separate one until that has not \
                         overflowed for 10 s"
                    );
                }
            }
            Change::Released(sources) => {
                if let Some(unsaid) = self.lane_notices.due("released", now) {
                    let source: Vec<_> = sources.iter().map(ToString::to_string).collect();
                    info!(
                        source = source.join(","),
                        unsaid,
                        "packets: source stopped overflowing; moved it back to the shared receive buffer"
                    );
                }
            }
        }
    }
}

impl Receiver {
    /// Takes over a new forwarding or device, if there is one.
    fn renew(&mut self, now: Instant) {
        if let Some(Inbound { table, decap }) = self.shared.inbound[self.index].take() {
            self.table = table;
            if let Some(decap) = decap {
                self.decap = decap;
            }
            let table = &self.table;
            let is_peer = |source| !table.senders(source).is_empty();
            if let Some(change) = self.lanes.review(is_peer, now) {
                self.note(change, now);
            }
        }
        if let Some(tun) = self.shared.devices[self.index].take() {
            self.coalescer = Coalescer::new(tun.udp);
            self.tun = tun;
        }
    }

    /// Delivers a batch.
    fn carry(&mut self, batch: &mut Batch, now: Instant) {
        let table = Arc::clone(&self.table);
        for &(at, received) in &batch.received {
            match table.senders(received.from) {
                [] => self.shared.tally.spoofed_outer.add(received.count()),
                peers => {
                    let origin = Origin { table: &table, peers, address: received.from, now };
                    self.open(&origin, &mut batch.bytes, at, received);
                }
            }
        }
        self.deliver(&mut batch.bytes, now);
    }

    /// Extracts the packets from a peer's datagrams.
    fn open(&mut self, origin: &Origin<'_>, bytes: &mut [u8], at: usize, received: Received) {
        let tally = &self.shared.tally;
        if received.length == 0 {
            return tally.malformed.one();
        }
        let datagrams = chunks(at, received);
        match &mut self.decap {
            Decap::Bare => {
                for datagram in datagrams {
                    self.accept(origin, bytes, datagram);
                }
            }
            Decap::Nobody => tally.plugin.add(received.count()),
            Decap::Transform(_) => {
                let lengths: Vec<_> =
                    datagrams.map(|datagram| saturating_u32(datagram.len())).collect();
                self.decapsulate(origin, &bytes[at..at + received.length], &lengths);
            }
        }
    }

    /// Decapsulates transformed payloads. If several peers share the address, a payload from which
    /// the plugin extracts no valid packet for one peer is tried for the next: how a peer
    /// transforms identifies it.
    fn decapsulate(&mut self, origin: &Origin<'_>, payloads: &[u8], lengths: &[u32]) {
        let (mut payloads, mut lengths) = (Cow::Borrowed(payloads), Cow::Borrowed(lengths));
        for (index, peer) in origin.peers.iter().enumerate() {
            let is_last = index + 1 == origin.peers.len();
            let Decap::Transform(plugin) = &mut self.decap else { return };
            let result = plugin
                .decapsulate(*peer, &payloads, &lengths)
                .and_then(|(bytes, packets)| Transformed::new(bytes, packets, lengths.len()));
            let (mut bytes, packets) = match result {
                Ok(transformed) => transformed.into_parts(),
                Err(reason) => {
                    self.shared.tally.plugin.add(lengths.len());
                    self.decap.fail();
                    return self.failed(reason);
                }
            };
            let origin = Origin { peers: std::slice::from_ref(peer), ..*origin };
            let (mut left, mut left_lengths, mut rest) = (Vec::new(), Vec::new(), &payloads[..]);
            // Previously accepted packets are in another buffer, but with a transform there are
            // none.
            for (packet, &length) in packets.zip(lengths.iter()) {
                let (payload, behind) = rest.split_at(length as usize);
                rest = behind;
                if !is_last && !origin.sends(&bytes[packet.clone()]) {
                    left.extend_from_slice(payload);
                    left_lengths.push(length);
                } else if packet.is_empty() {
                    self.shared.tally.refused.one();
                } else {
                    self.accept(&origin, &mut bytes, packet);
                }
            }
            self.deliver(&mut bytes, origin.now);
            if left.is_empty() {
                return;
            }
            (payloads, lengths) = (Cow::Owned(left), Cow::Owned(left_lengths));
        }
    }

    /// Accepts a packet from a peer, or drops it.
    fn accept(&mut self, origin: &Origin<'_>, bytes: &mut [u8], at: Range<usize>) {
        let tally = &self.shared.tally;
        let packet = &mut bytes[at.clone()];
        let Ok(inner) = Inner::parse(packet) else { return tally.malformed.one() };
        let Some(peer) = origin.table.owner(origin.peers, inner.source) else {
            return tally.spoofed_inner.one();
        };
        if !self.shared.settings.destinations.accept(origin.table, &inner) {
            tally.foreign_destination.one();
            return self.answer(Message::NetUnreachable, origin, peer, packet, &inner);
        }
        if ttl::decrement(packet, &inner).is_err() {
            tally.ttl_exceeded.one();
            return self.answer(Message::TimeExceeded, origin, peer, packet, &inner);
        }
        self.accepted.packets += 1;
        self.accepted.bytes += usize::from(inner.length);
        if self.tun.offload {
            self.coalescer.push(bytes, at, &inner);
        } else {
            let result = self.tun.write(&[IoSlice::new(packet)]);
            self.delivered(result, 1, origin.now);
        }
    }

    /// Writes the accepted packets to the device.
    fn deliver(&mut self, bytes: &mut [u8], now: Instant) {
        let accepted = std::mem::take(&mut self.accepted);
        self.shared.tally.received_packets.add(accepted.packets);
        self.shared.tally.received_bytes.add(accepted.bytes);
        let mut coalescer = std::mem::take(&mut self.coalescer);
        for packet in coalescer.packets(bytes) {
            let header = packet.vnet.to_bytes();
            let mut pieces = Vec::with_capacity(1 + packet.datagrams);
            pieces.push(IoSlice::new(&header));
            pieces.extend(packet.pieces.map(IoSlice::new));
            let result = self.tun.write(&pieces);
            self.delivered(result, packet.datagrams, now);
        }
        coalescer.clear();
        self.coalescer = coalescer;
    }

    fn delivered(&mut self, result: Result<(), Errno>, packets: usize, now: Instant) {
        if let Err(errno) = result {
            self.shared.tally.device_errors.add(packets);
            let device = self.shared.settings.device;
            if let Some(unsaid) = self.notices.due(errno, now) {
                warn!(%device, error = %errno.desc(), unsaid, "packets: cannot write to the TUN device; packets dropped");
            }
        }
    }

    /// Sends an ICMP error to the sender of a packet, through the peer that it came from.
    fn answer(
        &mut self,
        message: Message,
        origin: &Origin<'_>,
        peer: u32,
        packet: &[u8],
        inner: &Inner,
    ) {
        let Some(source) = self.shared.own_address(inner.family()) else { return };
        let mut reply = Vec::new();
        let packet = Datagram { header: &[], payload: packet };
        let Some(reply) = icmp::answer(message, packet, inner, source, &mut reply) else { return };
        if !self.limit.take(origin.now) {
            return;
        }
        let transformed;
        let payload = match &mut self.decap {
            Decap::Bare => reply,
            Decap::Nobody => return,
            Decap::Transform(plugin) => {
                match plugin.encapsulate(peer, reply, &[saturating_u32(reply.len())]) {
                    Ok((bytes, _)) => {
                        transformed = bytes;
                        &transformed[..]
                    }
                    Err(reason) => {
                        self.decap.fail();
                        return self.failed(reason);
                    }
                }
            }
        };
        if !payload.is_empty() {
            // Shorter than any path MTU.
            let outgoing = Outgoing { peer, to: origin.address, header: &[], payload };
            self.sender.send(&[outgoing], origin.now, |_, _| {});
            self.shared.tally.icmp.one();
        }
    }

    fn failed(&self, reason: String) {
        let device = self.shared.settings.device;
        warn!(%device, error = %reason, "packets: plugin failed on received packets; dropping them");
        (self.shared.on_failure)(Failure { reason });
    }

    /// Handles an error of reading the socket.
    fn trouble(&mut self, errno: Errno) {
        self.shared.tally.receive_errors.one();
        if let Some(unsaid) = self.notices.due(errno, Instant::now()) {
            let local = self.shared.sockets[self.index].local();
            warn!(%local, error = %errno.desc(), unsaid, "packets: cannot receive; retrying");
        }
        self.shared.stop.pause(PAUSE);
    }
}

/// Tells whether there may be more to receive.
enum More {
    Yes,
    No,
}

impl Batch {
    fn new() -> Self {
        Self { bytes: vec![0; CALLS * LONGEST], received: Vec::with_capacity(CALLS) }
    }

    /// Receives the datagrams in a lane, up to the batch's limit. Even on an error some may have
    /// been received.
    fn read(&mut self, socket: &Socket, lane: usize) -> Result<More, Errno> {
        self.received.clear();
        for start in (0..CALLS).map(|call| call * LONGEST) {
            match socket.receive(lane, &mut self.bytes[start..start + LONGEST])? {
                Some(received) => self.received.push((start, received)),
                None => return Ok(More::No),
            }
        }
        Ok(More::Yes)
    }
}

/// Returns the range of each datagram of a call.
fn chunks(at: usize, received: Received) -> impl Iterator<Item = Range<usize>> {
    let Received { length, size, .. } = received;
    (0..length).step_by(size.max(1)).map(move |start| at + start..at + length.min(start + size))
}
