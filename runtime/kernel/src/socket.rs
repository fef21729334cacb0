//! A netlink socket (netlink(7), rtnetlink(7)) for one request, one dump or one batch of changes at
//! a time.
//!
//! A batch is the fast path: many messages in one datagram, of which only the last asks for an
//! acknowledgement. The kernel processes them in order before `sendto` returns, answers each
//! failing message with an error of its own, and continues with the next (`netlink_rcv_skb` in
//! `net/netlink/af_netlink.c`).

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::error::Refusal;

/// The maximum number of changes in a batch. At about 120 bytes each, they fit the socket's send
/// buffer, and as many error messages fit its receive buffer.
pub(crate) const BATCH: usize = 512;

/// Time limit for a reply. Replies are queued before the request returns, so this only expires if
/// something is badly wrong.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of the receive buffer in bytes, for the error messages of a whole batch: about 1 KiB of
/// kernel memory each.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Size of the read buffer in bytes. The kernel fills up to 32 KiB at a time if the reader has room
/// for it (`netlink_dump`).
const DATAGRAM: usize = 64 << 10;

/// Maximum attempts for a dump that the kernel marks as inconsistent.
const DUMP_TRIES: usize = 10;

/// `NLMSGERR_ATTR_MSG`, `linux/netlink.h`: the attribute with the kernel's error message as text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A change to request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_*`, besides `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) flags: u16,
}

/// One netlink message as received.
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl Received<'_> {
    /// Decodes the message. Returns `None`, and logs it, if the message cannot be decoded: it is
    /// about a feature that heddled does not use, and must not hide the other messages.
    pub(crate) fn decode(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, self.payload)
            .inspect_err(|error| {
                tracing::debug!(kind = self.kind, %error, "kernel: cannot decode a netlink message; skipping it");
            })
            .ok()
    }

    /// Returns the result that an `NLMSG_ERROR` or `NLMSG_DONE` carries.
    fn result(&self) -> Result<(), Refusal> {
        let code =
            self.payload.first_chunk().map_or(-(Errno::EBADMSG as i32), |c| i32::from_ne_bytes(*c));
        if code == 0 {
            return Ok(());
        }
        Err(Refusal { errno: Errno::from_raw(-code), message: self.extended_message() })
    }

    /// Returns the text that follows the error code and, in an `NLMSG_ERROR`, the header or all of
    /// the failed request.
    fn extended_message(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let behind_code = self.payload.get(4..)?;
        let request = match self.kind {
            NLMSG_DONE => 0,
            _ if self.flags & NLM_F_CAPPED != 0 => NetlinkHeader::default().buffer_len(),
            _ => u32::from_ne_bytes(*behind_code.first_chunk()?).next_multiple_of(4) as usize,
        };
        let attribute = NlasIterator::new(behind_code.get(request..)?)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
        let text = attribute.value().strip_suffix(&[0]).unwrap_or(attribute.value());
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// Iterates over the messages in a datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = message.length() as usize;
        let received = Received {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: message.payload(),
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

/// A socket for requests and changes.
pub(crate) struct Socket {
    socket: rtnetlink::sys::Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = rtnetlink::sys::Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        enlarge(&socket, RECEIVE_BUFFER)?;
        let timeout =
            TimeVal::seconds(i64::try_from(RECEIVE_TIMEOUT.as_secs()).unwrap_or(i64::MAX));
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        // All three options only improve error reporting and filtering; kernels before 4.20 lack
        // some.
        for (option, result) in [
            ("NETLINK_CAP_ACK", socket.set_cap_ack(true)),
            ("NETLINK_EXT_ACK", socket.set_ext_ack(true)),
            ("NETLINK_GET_STRICT_CHK", socket.set_netlink_get_strict_chk(true)),
        ] {
            if let Err(error) = result {
                tracing::debug!(option, %error, "kernel: netlink option not supported; continuing without it");
            }
        }
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Dumps all objects of a kind, and returns those that `pick` selects.
    ///
    /// If objects change during the dump, the kernel marks it as inconsistent (`NLM_F_DUMP_INTR`),
    /// and the dump is retried.
    pub(crate) fn dump<T>(
        &mut self,
        question: RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..DUMP_TRIES {
            let request = Request { message: question.clone(), flags: NLM_F_DUMP };
            let mut found = Vec::new();
            if self.dump_once(&request, |message| found.extend(pick(message)))? {
                return Ok(found);
            }
        }
        let message = format!("it changed {DUMP_TRIES} times while it was read");
        Err(Refusal { errno: Errno::EINTR, message: Some(message) })
    }

    /// Runs one dump. Returns true if it is consistent.
    fn dump_once(
        &mut self,
        request: &Request,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, Refusal> {
        let first = self.send(std::slice::from_ref(request), false)?;
        let mut consistent = true;
        loop {
            self.receive()?;
            for received in messages(&self.datagram).filter(|m| m.sequence == first) {
                consistent &= received.flags & NLM_F_DUMP_INTR == 0;
                match received.kind {
                    NLMSG_DONE | NLMSG_ERROR => return received.result().map(|()| consistent),
                    _ => received.decode().into_iter().for_each(&mut take),
                }
            }
        }
    }

    /// Dumps objects that `packet_route` has no messages for. Returns the payloads of the messages of
    /// the kind `answer`.
    pub(crate) fn dump_raw(
        &mut self,
        question: u16,
        payload: &[u8],
        answer: u16,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.message_type = question;
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        header.length = u32::try_from(header.buffer_len() + payload.len()).unwrap_or(u32::MAX);
        let mut request = vec![0; header.buffer_len()];
        header.emit(&mut request);
        request.extend(payload);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let mut found = Vec::new();
        loop {
            self.receive()?;
            for received in messages(&self.datagram).filter(|m| m.sequence == self.sequence) {
                match received.kind {
                    NLMSG_DONE | NLMSG_ERROR => return received.result().map(|()| found),
                    kind if kind == answer => found.push(received.payload.to_vec()),
                    _ => {}
                }
            }
        }
    }

    /// Requests one object.
    pub(crate) fn get(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, Refusal> {
        let first = self.send(&[Request { message: question, flags: 0 }], false)?;
        loop {
            self.receive()?;
            let Some(received) = messages(&self.datagram).find(|m| m.sequence == first) else {
                continue;
            };
            if received.kind == NLMSG_ERROR {
                received.result()?;
            }
            let unreadable = Refusal { errno: Errno::EBADMSG, message: None };
            return received.decode().ok_or(unreadable);
        }
    }

    /// Requests a change and waits for its result.
    pub(crate) fn change(&mut self, request: Request) -> Result<(), Refusal> {
        self.batch(std::slice::from_ref(&request)).pop().unwrap_or(Ok(()))
    }

    /// Requests up to [`BATCH`] changes at once. The results are in the order of the requests.
    pub(crate) fn batch(&mut self, requests: &[Request]) -> Vec<Result<(), Refusal>> {
        match self.try_batch(requests) {
            Ok(results) => results,
            Err(refusal) if requests.len() <= 1 => vec![Err(refusal); requests.len()],
            // It is unknown which changes were made. All requests are idempotent, so they are sent
            // again.
            Err(_) => requests.iter().map(|request| self.change(request.clone())).collect(),
        }
    }

    fn try_batch(&mut self, requests: &[Request]) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let mut results = vec![Ok(()); requests.len()];
        let Some(last) = requests.len().checked_sub(1) else {
            return Ok(results);
        };
        let first = self.send(requests, true)?;
        loop {
            self.receive()?;
            for received in messages(&self.datagram).filter(|m| m.kind == NLMSG_ERROR) {
                let position = received.sequence.wrapping_sub(first) as usize;
                if let Some(result) = results.get_mut(position) {
                    *result = received.result();
                }
                if position == last {
                    return Ok(results);
                }
            }
        }
    }

    /// Sends messages as one datagram; only the last one asks for an acknowledgement, if any does.
    /// Returns the sequence number of the first.
    fn send(&mut self, requests: &[Request], acknowledge: bool) -> Result<u32, Refusal> {
        let first = self.sequence.wrapping_add(1);
        let last = requests.len().saturating_sub(1);
        self.datagram.clear();
        for (position, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.sequence_number = self.sequence;
            header.flags = request.flags | NLM_F_REQUEST;
            if acknowledge && position == last {
                header.flags |= NLM_F_ACK;
            }
            append(&mut self.datagram, header, &request.message);
        }
        self.socket.send_to(&self.datagram, &SocketAddr::new(0, 0), 0)?;
        Ok(first)
    }

    /// Receives the next datagram; a signal or a stopped process does not end the wait. The kernel
    /// reports both as `EINTR` on a socket with a timeout, even with `SA_RESTART` (signal(7)), and
    /// then the timeout starts again.
    fn receive(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            // Try once more after the time limit: it may have passed while the process was stopped.
            let late = begun.elapsed() >= RECEIVE_TIMEOUT;
            match receive(&self.socket, &mut self.datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && late => {
                    return Err(Errno::ETIMEDOUT.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Appends one message, padded to a multiple of four bytes.
fn append(datagram: &mut Vec<u8>, mut header: NetlinkHeader, message: &RouteNetlinkMessage) {
    let length = header.buffer_len() + NetlinkSerializable::buffer_len(message);
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = message.message_type();
    let start = datagram.len();
    datagram.resize(start + length.next_multiple_of(4), 0);
    header.emit(&mut datagram[start..]);
    message.serialize(&mut datagram[start + header.buffer_len()..start + length]);
}

/// Receives one datagram, replacing the contents of `datagram`.
pub(crate) fn receive(
    socket: &rtnetlink::sys::Socket,
    datagram: &mut Vec<u8>,
    flags: i32,
) -> io::Result<()> {
    datagram.clear();
    datagram.reserve(DATAGRAM);
    socket.recv(datagram, flags).map(|_| ())
}

/// Enlarges the receive buffer, past the system's limit (`net.core.rmem_max`) if allowed.
pub(crate) fn enlarge(socket: &rtnetlink::sys::Socket, bytes: usize) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_timeout_survives_stop_and_continue() {
        let mut socket = Socket::open().unwrap();
        let limit = Duration::from_millis(500);
        setsockopt(&socket.socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500)).unwrap();
        let stop = "sleep 0.1; kill -STOP $PPID; sleep 0.05; kill -CONT $PPID";
        let mut shell = std::process::Command::new("sh").args(["-c", stop]).spawn().unwrap();
        let begun = Instant::now();
        // No request was sent, so nothing arrives.
        let refusal = Refusal::from(socket.receive().unwrap_err());
        assert_eq!(refusal.errno, Errno::ETIMEDOUT, "{refusal}");
        assert!(begun.elapsed() >= limit);
        assert!(shell.wait().unwrap().success());
    }
}
