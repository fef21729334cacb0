//! Carries packets from the device to the peers.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use tracing::{info, warn};

use heddle_core::rate::Bucket;

use crate::Failure;
use crate::counters::Count;
use crate::datagrams::{Datagram, Datagrams};
use crate::forwarding::Outbound;
use crate::headers::Inner;
use crate::icmp::{self, Message};
use crate::message::Outgoing;
use crate::notice::Notices;
use crate::numbers::saturating_u32;
use crate::raw::RawSockets;
use crate::sender::Sender;
use crate::shared::{Settings, Shared, Wake, icmp_limit};
use crate::steer::{By, Steering};
use crate::table::Table;
use crate::transformed::Transformed;
use crate::tun::Tun;
use crate::vnet::{self, Vnet};
use crate::{fragment, gso, ttl};

/// The maximum number of packets in a batch, and in one call of the plugin.
const PACKETS: usize = 64;

/// The maximum length of a packet or super-packet, with the virtio header before it, in bytes.
const LONGEST: usize = vnet::LENGTH + 65_535;

/// The size of a batch's buffer in bytes. With several super-packets, segments of different packets
/// share messages, so fewer messages are almost empty. More than a few would only add latency.
const ROOM: usize = 4 * LONGEST;

/// Pause between attempts to re-create the device, and after an error of reading it.
const PAUSE: Duration = Duration::from_millis(100);

/// The sending thread.
pub(crate) struct Transmitter {
    shared: Arc<Shared>,
    tun: Arc<Tun>,
    table: Arc<Table>,
    steering: Steering,
    sender: Sender,
    raw: RawSockets,
    limit: Bucket,
    notices: Notices<Errno>,
    destinations: Vec<IpAddr>,
    answers: Vec<Option<u32>>,
}

/// Packets read from the device, and buffers for the headers of their segments.
struct Batch {
    bytes: Vec<u8>,
    /// The length of each packet, including the virtio header; the packets are contiguous.
    lengths: Vec<usize>,
    headers: Vec<Vec<u8>>,
}

/// One packet of a batch.
struct Packet<'a> {
    vnet: Vnet,
    inner: Inner,
    bytes: &'a mut [u8],
    headers: &'a mut Vec<u8>,
}

impl Transmitter {
    pub(crate) fn new(shared: Arc<Shared>, tun: Arc<Tun>) -> Self {
        Self {
            tun,
            table: Arc::default(),
            steering: Steering::Nobody,
            sender: Sender::new(Arc::clone(&shared)),
            raw: RawSockets::open(),
            limit: icmp_limit(),
            notices: Notices::default(),
            destinations: Vec::new(),
            answers: Vec::new(),
            shared,
        }
    }

    /// Carries packets until the path stops.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::new();
        loop {
            if shared.stop.wait_for(self.tun.as_fd(), PollFlags::POLLIN, None) == Wake::Stop {
                return;
            }
            // Read everything that is available before waiting again.
            loop {
                let read = batch.read(&self.tun);
                self.renew();
                self.carry(&mut batch, Instant::now());
                match read {
                    Err(errno) => {
                        self.trouble(errno);
                        break;
                    }
                    Ok(_) if shared.stop.is_requested() => break,
                    Ok(More::Yes) => {}
                    // The producer may be waiting for this CPU; one yield is cheaper than a poll
                    // and a wake-up. It happens once, since the next read then finds nothing.
                    Ok(More::No) if !batch.lengths.is_empty() => thread::yield_now(),
                    Ok(More::No) => break,
                }
            }
        }
    }

    /// Takes over a new forwarding, if there is one.
    fn renew(&mut self) {
        if let Some(Outbound { table, steering }) = self.shared.outbound.take() {
            self.table = table;
            if let Some(steering) = steering {
                self.steering.replace(steering);
            }
        }
    }

    /// Sends a batch.
    fn carry(&mut self, batch: &mut Batch, now: Instant) {
        let mut packets = batch.packets(self.tun.offload, &self.shared.tally.malformed);
        if packets.is_empty() || !self.steer(&packets, now) {
            return;
        }
        let mut outgoing = Vec::with_capacity(4 * PACKETS);
        let answers = std::mem::take(&mut self.answers);
        for (packet, answer) in packets.drain(..).zip(&answers) {
            self.prepare(packet, *answer, &mut outgoing, now);
        }
        self.answers = answers;
        // Group the datagrams by peer, in order, so that as many as possible share a message.
        outgoing.sort_by_key(|datagram| datagram.peer);
        for (datagram, limit) in self.transmit(&outgoing, now) {
            self.too_long(&datagram, limit, true, now);
        }
    }

    /// Asks for the peers of a batch's packets. Returns true if there are answers.
    fn steer(&mut self, packets: &[Packet<'_>], now: Instant) -> bool {
        self.destinations.clear();
        self.destinations.extend(packets.iter().map(|packet| packet.inner.destination));
        self.answers.clear();
        let (by, failure) =
            self.steering.steer(&self.table, &self.destinations, &mut self.answers, now);
        if let Some(reason) = failure {
            self.failed(reason, by);
        }
        match by {
            By::Plugin => {}
            By::Table => self.shared.tally.fallback.add(packets.len()),
            By::Nobody => self.shared.tally.plugin.add(packets.len()),
        }
        by != By::Nobody
    }

    fn failed(&self, reason: String, by: By) {
        let device = self.shared.settings.device;
        let consequence = match by {
            By::Nobody => "dropping packets",
            By::Plugin | By::Table => "steering by its last answers",
        };
        warn!(%device, error = %reason, "packets: plugin failed on packets to send; {consequence}");
        (self.shared.on_failure)(Failure { reason });
    }

    /// Splits a packet into datagrams for its peer, or reports an ICMP error to its sender.
    fn prepare<'a>(
        &mut self,
        packet: Packet<'a>,
        answer: Option<u32>,
        outgoing: &mut Vec<Outgoing<'a>>,
        now: Instant,
    ) {
        let Packet { vnet, inner, bytes, headers } = packet;
        let tally = &self.shared.tally;
        let route =
            answer.and_then(|peer| Some((peer, self.table.endpoint(peer, inner.family())?)));
        let Some((peer, to)) = route else {
            tally.no_route.one();
            return self.answer(Message::NetUnreachable, bytes, &inner, now);
        };
        if ttl::decrement(bytes, &inner).is_err() {
            tally.ttl_exceeded.one();
            return self.answer(Message::TimeExceeded, bytes, &inner, now);
        }
        let Ok(datagrams) = gso::split(&vnet, bytes, &inner, headers) else {
            tally.malformed.one();
            return;
        };
        let datagrams = addressed(datagrams, peer, to);
        match self.room(to, now) {
            None => outgoing.extend(datagrams),
            Some(limit) => {
                let mut first = true;
                for datagram in datagrams {
                    if datagram.length() <= limit {
                        outgoing.push(datagram);
                    } else {
                        // One ICMP error is enough for all segments.
                        self.too_long(&datagram, limit, first, now);
                        first = false;
                    }
                }
            }
        }
    }

    /// Returns the longest inner packet that reaches an address, in bytes. `None` if no limit is
    /// known.
    fn room(&self, to: IpAddr, now: Instant) -> Option<usize> {
        let overhead = match self.steering {
            Steering::Transform { overhead, .. } => overhead,
            _ => 0,
        };
        self.sender.limit(to, now).map(|limit| limit.saturating_sub(overhead))
    }

    /// Sends packets, transformed if there is a transform. Returns those that exceed the path MTU,
    /// with the longest payload that would fit; transformed packets that do are counted and
    /// dropped.
    fn transmit<'a>(
        &mut self,
        outgoing: &[Outgoing<'a>],
        now: Instant,
    ) -> Vec<(Outgoing<'a>, usize)> {
        let mut too_long = Vec::new();
        let Steering::Transform { plugin, .. } = &mut self.steering else {
            self.sender.send(outgoing, now, |datagram, limit| too_long.push((*datagram, limit)));
            return too_long;
        };
        let mut results = Vec::new();
        let mut failure = None;
        for run in outgoing.chunk_by(|one, next| (one.peer, one.to) == (next.peer, next.to)) {
            let (peer, to) = (run[0].peer, run[0].to);
            let mut bytes = Vec::with_capacity(run.iter().map(Outgoing::length).sum());
            let mut lengths = Vec::with_capacity(run.len());
            for datagram in run {
                bytes.extend_from_slice(datagram.header);
                bytes.extend_from_slice(datagram.payload);
                lengths.push(saturating_u32(datagram.length()));
            }
            let result = plugin
                .encapsulate(peer, &bytes, &lengths)
                .and_then(|(bytes, lengths)| Transformed::new(bytes, lengths, run.len()));
            match result {
                Ok(transformed) => results.push((peer, to, transformed)),
                Err(reason) => {
                    failure = Some(reason);
                    break;
                }
            }
        }
        let tally = &self.shared.tally;
        let done: usize = results.iter().map(|(.., transformed)| transformed.count()).sum();
        tally.plugin.add(outgoing.len() - done);
        let mut datagrams = Vec::with_capacity(done);
        for (peer, to, transformed) in &results {
            tally.refused.add(transformed.dropped());
            datagrams.extend(transformed.iter().map(|payload| Outgoing {
                peer: *peer,
                to: *to,
                header: &[],
                payload,
            }));
        }
        self.sender.send(&datagrams, now, |_, _| tally.too_big.one());
        if let Some(reason) = failure {
            self.steering.fail(now);
            self.failed(reason, By::Nobody);
        }
        too_long
    }

    /// Handles a packet that exceeds the path MTU: sends fragments of it, or reports an ICMP error
    /// to its sender.
    fn too_long(&mut self, datagram: &Outgoing<'_>, limit: usize, tell: bool, now: Instant) {
        let packet = [datagram.header, datagram.payload].concat();
        let Ok(inner) = Inner::parse(&packet) else { return };
        let mut scratch = Vec::new();
        let fragments = match fragment::fragment(&packet, &inner, limit, &mut scratch) {
            Ok(fragments) if !inner.dont_fragment => fragments,
            _ => {
                self.shared.tally.too_big.one();
                if tell {
                    self.answer(
                        Message::TooBig { mtu: saturating_u32(limit) },
                        &packet,
                        &inner,
                        now,
                    );
                }
                return;
            }
        };
        self.shared.tally.fragmented.one();
        let outgoing: Vec<_> = addressed(fragments, datagram.peer, datagram.to).collect();
        let lost = self.transmit(&outgoing, now);
        self.shared.tally.too_big.add(lost.len());
    }

    /// Sends an ICMP error to a packet's sender, within the rate limit.
    fn answer(&mut self, message: Message, packet: &[u8], inner: &Inner, now: Instant) {
        let Some(source) = self.shared.own_address(inner.family()) else { return };
        let mut reply = Vec::new();
        let packet = Datagram { header: &[], payload: packet };
        let Some(reply) = icmp::answer(message, packet, inner, source, &mut reply) else { return };
        if !self.limit.take(now) {
            return;
        }
        if self.raw.send(reply, inner.source).is_ok() {
            self.shared.tally.icmp.one();
        }
    }

    /// Handles an error of reading the device.
    fn trouble(&mut self, errno: Errno) {
        let device = self.shared.settings.device;
        self.shared.tally.device_errors.one();
        if errno == Errno::EBADFD {
            info!(%device, "packets: TUN device was deleted; re-creating it");
            self.remake();
            return;
        }
        if let Some(unsaid) = self.notices.due(errno, Instant::now()) {
            warn!(%device, error = %errno.desc(), unsaid, "packets: cannot read from the TUN device; retrying");
        }
        self.shared.stop.pause(PAUSE);
    }

    /// Re-creates the device, for all threads. Retries until the path stops.
    fn remake(&mut self) {
        let Settings { device, mtu, .. } = self.shared.settings;
        // Also wait before the first attempt: another program may delete the device as fast as we
        // create it.
        while self.shared.stop.pause(PAUSE) != Wake::Stop {
            match Tun::make(device, mtu, self.shared.offload) {
                Ok(tun) => {
                    self.tun = Arc::new(tun);
                    for receiver in &self.shared.devices {
                        receiver.put(Arc::clone(&self.tun));
                    }
                    info!(%device, "packets: TUN device re-created");
                    return;
                }
                Err(error) => {
                    self.shared.tally.device_errors.one();
                    if let Some(unsaid) = self.notices.due(Errno::EBADFD, Instant::now()) {
                        warn!(%device, %error, unsaid, "packets: cannot re-create the TUN device; retrying");
                    }
                }
            }
        }
    }
}

/// Tells whether there may be more to read.
enum More {
    Yes,
    No,
}

impl Batch {
    fn new() -> Self {
        Self {
            bytes: vec![0; ROOM],
            lengths: Vec::with_capacity(PACKETS),
            headers: (0..PACKETS).map(|_| Vec::new()).collect(),
        }
    }

    /// Reads all available packets, up to the batch's limits. Even on an error some may have been
    /// read.
    fn read(&mut self, tun: &Tun) -> Result<More, Errno> {
        self.lengths.clear();
        let mut used = 0;
        while self.lengths.len() < PACKETS && self.bytes.len() - used >= LONGEST {
            let Some(length) = tun.read(&mut self.bytes[used..])? else { return Ok(More::No) };
            used += length;
            self.lengths.push(length);
        }
        Ok(More::Yes)
    }

    /// Parses the packets. Counts those that are malformed.
    fn packets(&mut self, offload: bool, malformed: &Count) -> Vec<Packet<'_>> {
        let mut packets = Vec::with_capacity(self.lengths.len());
        let mut rest = &mut self.bytes[..];
        for (&length, headers) in self.lengths.iter().zip(&mut self.headers) {
            let (bytes, behind) = std::mem::take(&mut rest).split_at_mut(length);
            rest = behind;
            let (vnet, bytes) = match offload {
                true => match Vnet::split_off(bytes) {
                    Some(split) => split,
                    None => {
                        malformed.one();
                        continue;
                    }
                },
                false => (Vnet::default(), bytes),
            };
            match Inner::parse(bytes) {
                Ok(inner) => packets.push(Packet { vnet, inner, bytes, headers }),
                Err(_) => malformed.one(),
            }
        }
        packets
    }
}

fn addressed<'a>(
    datagrams: Datagrams<'a>,
    peer: u32,
    to: IpAddr,
) -> impl Iterator<Item = Outgoing<'a>> {
    datagrams.map(move |datagram| Outgoing {
        peer,
        to,
        header: datagram.header,
        payload: datagram.payload,
    })
}
