//! Tries everything a program can do by itself: files, directories, the environment, sockets, name
//! resolution. The plan is good if none of that works.

use std::fs;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{NodePlan, log};

/// The hostile plugin.
pub struct FilesAndSockets;

impl Malice for FilesAndSockets {
    fn plan_node(_: &Scene<'_>, _: &mut NodePlan) {
        let worked = [
            ("read", fs::read("/etc/passwd").is_ok()),
            ("list", fs::read_dir("/").is_ok()),
            ("write", fs::write("/tmp/heddle-was-here", "x").is_ok()),
            ("remove", fs::remove_file("/tmp/heddle-was-here").is_ok()),
            ("environment", std::env::vars().next().is_some()),
            ("arguments", std::env::args().len() > 0),
            ("listen", TcpListener::bind("127.0.0.1:0").is_ok()),
            ("connect", TcpStream::connect("127.0.0.1:9980").is_ok()),
            ("datagrams", UdpSocket::bind("127.0.0.1:0").is_ok()),
            ("names", "localhost:1".to_socket_addrs().is_ok()),
        ];
        for (what, worked) in worked {
            assert!(!worked, "{what} worked");
        }
        log::warn("nothing of that works");
    }
}

hostile!(FilesAndSockets, name = "files-and-sockets");
