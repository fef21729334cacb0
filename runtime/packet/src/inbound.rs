//! From the peers to the device.

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
use crate::sender::Sender;
use crate::shared::{Shared, Wake, icmp_limit};
use crate::socket::{Received, Socket};
use crate::table::Table;
use crate::transformed::Transformed;
use crate::ttl;
use crate::tun::Tun;

/// The most bytes that one call receives: datagrams that the kernel joined, or one.
const LONGEST: usize = 65_536;

/// How many calls' worth of datagrams are looked at together.
const CALLS: usize = 4;

/// After an error of the socket.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that receives.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    /// Which socket is its own.
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

/// What is yet to be counted, all at once: to do so for each packet would be felt.
#[derive(Default)]
struct Accepted {
    packets: usize,
    bytes: usize,
}

/// Who sent a datagram.
struct Origin<'a> {
    table: &'a Table,
    /// The peers with the address that it came from: at least one.
    peers: &'a [u32],
    address: IpAddr,
    /// When it was looked at.
    now: Instant,
}

impl Origin<'_> {
    /// Whether one of the peers may send this as a packet.
    fn sends(&self, packet: &[u8]) -> bool {
        let source = Inner::parse(packet).map(|inner| inner.source);
        source.is_ok_and(|source| self.table.owner(self.peers, source).is_some())
    }
}

/// Datagrams as they were received.
struct Batch {
    bytes: Vec<u8>,
    /// Where each call's begin.
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

    /// Carries packets until the path ends.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let socket = &shared.sockets[self.index];
        let mut batch = Batch::new();
        while shared.stop.wait_for_any(self.lanes.awake().map(|lane| socket.lane(lane)))
            != Wake::Stop
        {
            // Everything that is there, before waiting again.
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
                    Ok(_) if shared.stop.told() => break,
                    Ok(More::Yes) => {}
                    // Whoever has more for us may wait for this CPU, and to let him have it is cheaper than to sleep
                    // and be woken by him. Once: then there is nothing to do.
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

/// Shares of the receive buffer.
impl Receiver {
    /// Takes note of what a lane had, and steers sources to other lanes where they take too much or no longer do.
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
        if !self.lanes.is_settled() {
            self.steer(now);
        }
    }

    /// Has the kernel steer datagrams as the lanes are now. If it refuses, that is tried again after the next batch.
    fn steer(&mut self, now: Instant) {
        let socket = &self.shared.sockets[self.index];
        match socket.steer(self.lanes.steering()) {
            Ok(()) => self.lanes.settle(),
            Err(errno) => {
                if let Some(unsaid) = self.lane_notices.due("refused", now) {
                    warn!(
                        local = %socket.local(), reason = %errno.desc(), unsaid,
                        "packets: the kernel refused to steer datagrams; trying again"
                    );
                }
            }
        }
    }

    /// Counts and logs who has another lane now.
    fn note(&mut self, change: Change, now: Instant) {
        match change {
            Change::Isolated(source) => {
                self.shared.tally.isolated.one();
                if let Some(unsaid) = self.lane_notices.due("isolated", now) {
                    let is_peer = !self.table.senders(source).is_empty();
                    warn!(
                        %source, is_peer, unsaid,
                        "packets: a source filled the receive buffer of all; it has one of its own until it sends less"
                    );
                }
            }
            Change::Released => {
                if let Some(unsaid) = self.lane_notices.due("released", now) {
                    info!(
                        unsaid,
                        "packets: a source sends less; it shares the receive buffer again"
                    );
                }
            }
        }
    }
}

impl Receiver {
    /// Takes what was handed over meanwhile.
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

    /// Gets the packets out of a peer's datagrams.
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
                let lengths: Vec<_> = datagrams.map(|datagram| datagram.len() as u32).collect();
                self.decapsulate(origin, &bytes[at..at + received.length], &lengths);
            }
        }
    }

    /// Gets the packets out of transformed payloads. Where several peers have the address, what the plugin makes no packet
    /// of the first's of is offered to it as the next one's: how a peer transforms is proof of who it is.
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
            // What was accepted before lies in another buffer. With a transform there is nothing.
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

    /// Takes a packet from a peer, or drops it.
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

    /// Writes what was accepted.
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
                warn!(%device, reason = %errno.desc(), unsaid, "cannot write to the device");
            }
        }
    }

    /// Tells the sender of a packet, by way of the peer that it came from, why it goes no further.
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
                match plugin.encapsulate(peer, reply, &[reply.len() as u32]) {
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
            // Shorter than any path.
            let outgoing = Outgoing { peer, to: origin.address, header: &[], payload };
            self.sender.send(&[outgoing], origin.now, |_, _| {});
            self.shared.tally.icmp.one();
        }
    }

    fn failed(&self, reason: String) {
        let device = self.shared.settings.device;
        warn!(%device, %reason, "the plugin failed on packets received; they are dropped");
        (self.shared.on_failure)(Failure { reason });
    }

    /// The socket could not be read.
    fn trouble(&mut self, errno: Errno) {
        self.shared.tally.receive_errors.one();
        if let Some(unsaid) = self.notices.due(errno, Instant::now()) {
            let local = self.shared.sockets[self.index].local();
            warn!(%local, reason = %errno.desc(), unsaid, "cannot receive datagrams");
        }
        self.shared.stop.pause(PAUSE);
    }
}

/// Whether there may be more to receive.
enum More {
    Yes,
    No,
}

impl Batch {
    fn new() -> Self {
        Self { bytes: vec![0; CALLS * LONGEST], received: Vec::with_capacity(CALLS) }
    }

    /// Receives what is in a lane. On an error there may be datagrams, too.
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

/// Where each datagram of a call is.
fn chunks(at: usize, received: Received) -> impl Iterator<Item = Range<usize>> {
    let Received { length, size, .. } = received;
    (0..length).step_by(size.max(1)).map(move |start| at + start..at + length.min(start + size))
}
