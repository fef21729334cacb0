//! The classic BPF program with which the kernel steers datagrams to lanes. It looks only at the
//! source address, so that a source cannot leave its lane by changing its port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_core::address::Family;
use nix::libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SKF_NET_OFF, sock_filter,
};

use crate::lanes::SHARED;
use crate::numbers::saturating_u32;

/// The offset of the source address in an IP header, in bytes.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;

/// Builds the program for the socket group of one family (`SO_ATTACH_REUSEPORT_CBPF` in socket(7)).
/// It returns the lane of an isolated source, and the shared lane for all others. Skips sources of
/// the other family.
pub(crate) fn program(
    family: Family,
    steering: impl Iterator<Item = (IpAddr, usize)>,
) -> Vec<sock_filter> {
    let mut program = Vec::new();
    if family == Family::V4 {
        program.push(load(SOURCE_V4));
    }
    for (source, lane) in steering {
        match (family, source) {
            (Family::V4, IpAddr::V4(source)) => program.extend(compare_v4(source, lane)),
            (Family::V6, IpAddr::V6(source)) => program.extend(compare_v6(source, lane)),
            _ => {}
        }
    }
    program.push(lane_is(SHARED));
    program
}

fn compare_v4(source: Ipv4Addr, lane: usize) -> [sock_filter; 2] {
    [unless_equal(source.into(), 1), lane_is(lane)]
}

fn compare_v6(source: Ipv6Addr, lane: usize) -> Vec<sock_filter> {
    let mut program = Vec::with_capacity(9);
    let octets = source.octets();
    let (words, _) = octets.as_chunks();
    // The number of instructions left of these nine.
    let left = [7, 5, 3, 1];
    for ((word, offset), left) in words.iter().zip((SOURCE_V6..).step_by(4)).zip(left) {
        program.push(load(offset));
        program.push(unless_equal(u32::from_be_bytes(*word), left));
    }
    program.push(lane_is(lane));
    program
}

/// Loads four bytes of the IP header.
fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, SKF_NET_OFF.cast_unsigned() + offset)
}

/// Skips this many instructions unless the loaded value equals `value`.
fn unless_equal(value: u32, skipped: u8) -> sock_filter {
    sock_filter { jf: skipped, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) }
}

/// Returns this lane from the program.
fn lane_is(lane: usize) -> sock_filter {
    statement(BPF_RET | BPF_K, saturating_u32(lane))
}

fn statement(code: u32, value: u32) -> sock_filter {
    // All codes have 16 bits; libc declares them as wider.
    sock_filter { code: (code & 0xffff) as u16, jt: 0, jf: 0, k: value }
}
