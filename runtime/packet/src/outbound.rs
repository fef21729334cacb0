//! From the device to the peers.

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
use crate::raw::RawSockets;
use crate::sender::Sender;
use crate::shared::{Settings, Shared, Wake, icmp_limit};
use crate::steer::{By, Steering};
use crate::table::Table;
use crate::transformed::Transformed;
use crate::tun::Tun;
use crate::vnet::{self, Vnet};
use crate::{fragment, gso, ttl};

/// The most packets of one batch, and of one call of the plugin.
const PACKETS: usize = 64;

/// The longest packet, or super-packet, with the header before it.
const LONGEST: usize = vnet::LENGTH + 65_535;

/// Room for a batch. Several super-packets are better than one: their segments share messages, of which the last need
/// not be almost empty each time. Many would only wait for each other.
const ROOM: usize = 4 * LONGEST;

/// Between attempts to make the device again, and to read from one that gives errors.
const PAUSE: Duration = Duration::from_millis(100);

/// The thread that sends.
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

/// Packets as they were read, and room for the headers of their segments.
struct Batch {
    bytes: Vec<u8>,
    /// Of each packet, with the header before it; they lie one behind the other.
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

    /// Carries packets until the path ends.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::new();
        loop {
            if shared.stop.wait_for(self.tun.as_fd(), PollFlags::POLLIN, None) == Wake::Stop {
                return;
            }
            // Everything that is there, before waiting again.
            loop {
                let read = batch.read(&self.tun);
                self.renew();
                self.carry(&mut batch, Instant::now());
                match read {
                    Err(errno) => {
                        self.trouble(errno);
                        break;
                    }
                    Ok(_) if shared.stop.told() => break,
                    Ok(More::Yes) => {}
                    // Whoever has more for us may wait for this CPU, and to let him have it is cheaper than to sleep
                    // and be woken by him. Once: then there is nothing to do.
                    Ok(More::No) if !batch.lengths.is_empty() => thread::yield_now(),
                    Ok(More::No) => break,
                }
            }
        }
    }

    /// Takes what was handed over meanwhile.
    fn renew(&mut self) {
        if let Some(Outbound { table, steering }) = self.shared.outbound.take() {
            self.table = table;
            if let Some(steering) = steering {
                self.steering.replace(steering);
            }
        }
    }

    /// Sends a batch on its way.
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
        // To one peer in their order, and as many together as can be.
        outgoing.sort_by_key(|datagram| datagram.peer);
        for (datagram, limit) in self.transmit(&outgoing, now) {
            self.too_long(&datagram, limit, true, now);
        }
    }

    /// Has the packets of a batch steered. Returns whether there are answers.
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
        let meanwhile = match by {
            By::Nobody => "packets are dropped",
            By::Plugin | By::Table => "the table of its last answers steers",
        };
        warn!(device = %self.shared.settings.device, %reason, meanwhile, "the plugin failed on packets");
        (self.shared.on_failure)(Failure { reason });
    }

    /// Makes datagrams of a packet, or tells its sender why not.
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
                        // One answer is enough for all segments.
                        self.too_long(&datagram, limit, first, now);
                        first = false;
                    }
                }
            }
        }
    }

    /// The longest inner packet that reaches an address; none where no limit is known.
    fn room(&self, to: IpAddr, now: Instant) -> Option<usize> {
        let overhead = match self.steering {
            Steering::Transform { overhead, .. } => overhead,
            _ => 0,
        };
        self.sender.limit(to, now).map(|limit| limit.saturating_sub(overhead))
    }

    /// Sends packets, transformed where there is a transform. Returns those that turned out to be too long for the
    /// path, with what would fit; transformed ones are counted and gone.
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
                lengths.push(datagram.length() as u32);
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

    /// A packet that does not fit the path: fragments of it are sent, or its sender is told.
    fn too_long(&mut self, datagram: &Outgoing<'_>, limit: usize, tell: bool, now: Instant) {
        let packet = [datagram.header, datagram.payload].concat();
        let Ok(inner) = Inner::parse(&packet) else { return };
        let mut scratch = Vec::new();
        let fragments = match fragment::fragment(&packet, &inner, limit, &mut scratch) {
            Ok(fragments) if !inner.dont_fragment => fragments,
            _ => {
                self.shared.tally.too_big.one();
                if tell {
                    self.answer(Message::TooBig { mtu: limit as u32 }, &packet, &inner, now);
                }
                return;
            }
        };
        self.shared.tally.fragmented.one();
        let outgoing: Vec<_> = addressed(fragments, datagram.peer, datagram.to).collect();
        let lost = self.transmit(&outgoing, now);
        self.shared.tally.too_big.add(lost.len());
    }

    /// Tells a packet's sender what became of it.
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

    /// The device could not be read.
    fn trouble(&mut self, errno: Errno) {
        let device = self.shared.settings.device;
        self.shared.tally.device_errors.one();
        if errno == Errno::EBADFD {
            info!(%device, "the device is gone: making it again");
            self.remake();
            return;
        }
        if let Some(unsaid) = self.notices.due(errno, Instant::now()) {
            warn!(%device, reason = %errno.desc(), unsaid, "cannot read from the device");
        }
        self.shared.stop.pause(PAUSE);
    }

    /// Makes the device again, for all threads. Gives up only when the path ends.
    fn remake(&mut self) {
        let Settings { device, mtu, .. } = self.shared.settings;
        // Before the first attempt, too: somebody may delete it as fast as we make it.
        while self.shared.stop.pause(PAUSE) != Wake::Stop {
            match Tun::make(device, mtu, self.shared.offload) {
                Ok(tun) => {
                    self.tun = Arc::new(tun);
                    for receiver in &self.shared.devices {
                        receiver.put(Arc::clone(&self.tun));
                    }
                    info!(%device, "the device is there again");
                    return;
                }
                Err(error) => {
                    self.shared.tally.device_errors.one();
                    if let Some(unsaid) = self.notices.due(Errno::EBADFD, Instant::now()) {
                        warn!(%error, unsaid, "cannot make the device again");
                    }
                }
            }
        }
    }
}

/// Whether there may be more to read.
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

    /// Reads what is there. On an error there may be packets, too.
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

    /// The packets. What is none is counted.
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
