//! Parsers of values: networks and addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use heddle_core::address::is_host;
use ipnet::IpNet;

/// Parses a network, or an address as the network of that address alone.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "expected a network, such as 192.0.2.0/24, or an address".to_owned())
}

/// Parses an address at which other hosts can reach this one, of the family of `A`.
pub(crate) fn public_address<A: FromStr + Copy + Into<IpAddr>>(text: &str) -> Result<A, String> {
    let address = text.parse::<A>().map_err(|_| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => "expected an IPv6 address; the flag for IPv4 is --public-ip",
        Ok(IpAddr::V6(_)) => "expected an IPv4 address; the flag for IPv6 is --public-ipv6",
        Err(_) => "expected an address at which other hosts reach this one",
    })?;
    if is_host(address.into()) {
        return Ok(address);
    }
    Err("expected an address at which other hosts reach this one: no loopback, multicast or broadcast address"
        .to_owned())
}

/// Parses a prefix of keys, without empty parts and `.`, as Go's `path.Join` joins it.
pub(crate) fn clean_key(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("expected a key without `..`, such as /coreos.com/network".to_owned());
    }
    let root = if text.starts_with('/') { "/" } else { "" };
    Ok(format!("{root}{}", parts.join("/")))
}

/// Parses a path, which is relative to the current directory.
pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error: io::Error| error.to_string())
}

/// Parses the address of the health port.
pub(crate) fn healthz_ip(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => {
            text.parse().map_err(|_| "expected an IP address of this host, or localhost".to_owned())
        }
    }
}

/// Parses the address of a listener: a port alone means the loopback address.
pub(crate) fn listener(text: &str) -> Result<SocketAddr, String> {
    let on_loopback = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    let found = text.parse().ok().or_else(on_loopback).filter(|found| found.port() != 0);
    found.ok_or_else(|| "expected a port, such as 9981, or 192.0.2.1:9981, or [::]:9981".to_owned())
}
