//! Continuous pings in the background that count lost requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, wait_until};

/// Time after which an unanswered request counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// The result of a [`PingStream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings {
    /// The number of answered requests.
    pub answered: usize,
    /// The numbers of the lost requests, counted from 1.
    pub lost: Vec<u64>,
    /// The longest round-trip time.
    pub longest: Duration,
}

/// A continuous ping.
#[derive(Debug)]
pub struct PingStream {
    child: Child,
    interval: Duration,
    answered: Arc<Mutex<BTreeMap<u64, Duration>>>,
    reader: Option<JoinHandle<()>>,
}

impl PingStream {
    /// Returns the command that sends the requests.
    pub(crate) fn command(address: IpAddr, interval: Duration) -> Command {
        let mut command = Command::new("ping");
        command.args(["-n", "-i", &interval.as_secs_f64().to_string(), &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Reads the answers of that command, which is running.
    pub(crate) fn read(mut child: Child, interval: Duration) -> Self {
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let answered = Arc::new(Mutex::new(BTreeMap::new()));
        let answers = Arc::clone(&answered);
        let reader = std::thread::spawn(move || {
            let mut last = 0;
            for (number, time) in
                output.lines().map_while(Result::ok).filter_map(|line| answer(&line))
            {
                last = unwrapped(last, number);
                answers.lock().unwrap_or_else(PoisonError::into_inner).insert(last, time);
            }
        });
        Self { child, interval, answered, reader: Some(reader) }
    }

    fn answered(&self) -> MutexGuard<'_, BTreeMap<u64, Duration>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the latest answered request.
    fn last(&self) -> u64 {
        self.answered().last_key_value().map_or(0, |(&number, _)| number)
    }

    /// Waits until this many more requests were answered.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if that takes longer than ten seconds.
    pub fn wait_answers(&self, count: usize) -> Result<(), Error> {
        let goal = self.answered().len() + count;
        wait_until(format!("{count} more answers to pings"), Duration::from_secs(10), || {
            let answers = self.answered().len();
            if answers >= goal { Ok(()) } else { Err(format!("{} to go", goal - answers)) }
        })
    }

    /// Ends the ping, one second after the last request that counts.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if ping has exited already.
    pub fn finish(mut self) -> Result<Pings, Error> {
        // Pending requests may still be answered; those sent from now on have higher numbers and do
        // not count.
        let last = self.last();
        std::thread::sleep(PATIENCE / 2);
        let later = self.last();
        std::thread::sleep(PATIENCE / 2);
        let answered = self.answered().clone();
        // If nothing has been answered recently, the requests of the last second are lost. Earlier
        // answers may have been read a little late.
        let last = match self.last() {
            latest if latest > later => last,
            _ => {
                let recent = PATIENCE.as_nanos() / self.interval.as_nanos().max(1);
                last.saturating_add(u64::try_from(recent).unwrap_or(u64::MAX))
            }
        };
        self.end()?;
        Ok(Pings {
            answered: answered.len(),
            lost: (1..=last).filter(|number| !answered.contains_key(number)).collect(),
            longest: answered.into_values().max().unwrap_or_default(),
        })
    }

    fn end(&mut self) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .map_err(|errno| Error::io("ending ping")(errno.into()))?;
        self.child.wait().map_err(Error::io("ending ping"))?;
        if let Some(reader) = self.reader.take() {
            // A panic was already reported by the thread.
            let _ = reader.join();
        }
        Ok(())
    }
}

impl Drop for PingStream {
    fn drop(&mut self) {
        // It may have exited already; it is gone afterwards in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses number and time from `64 bytes from 10.1.2.3: icmp_seq=7 ttl=62 time=0.1 ms`.
fn answer(line: &str) -> Option<(u16, Duration)> {
    if !line.contains(" bytes from ") {
        return None;
    }
    let after = |name| line.split_once(name)?.1.split(' ').next();
    let milliseconds: f64 = after("time=")?.parse().ok()?;
    let time = Duration::try_from_secs_f64(milliseconds / 1000.0).ok()?;
    Some((after("icmp_seq=")?.parse().ok()?, time))
}

/// Returns the request with this sequence number that is nearest to `last`: 65535 is followed by 0
/// (RFC 792 has 16 bits), after eleven minutes at a hundred requests per second.
fn unwrapped(last: u64, number: u16) -> u64 {
    // The low bits of the difference, as a signed number.
    let step = number.wrapping_sub((last & 0xffff) as u16).cast_signed();
    last.saturating_add_signed(step.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_unwrapped() {
        assert_eq!(unwrapped(0, 1), 1);
        assert_eq!(unwrapped(65_535, 0), 65_536);
        assert_eq!(unwrapped(65_537, 65_535), 65_535);
        assert_eq!(unwrapped(3 * 65_536 - 2, 4), 3 * 65_536 + 4);
    }

    #[test]
    fn only_answers_are_parsed() {
        let answered = answer("64 bytes from 10.1.2.3: icmp_seq=7 ttl=62 time=0.061 ms");
        assert_eq!(answered, Some((7, Duration::from_micros(61))));
        for line in [
            "PING 10.1.2.3 (10.1.2.3) 56(84) bytes of data.",
            "From 10.1.2.1 icmp_seq=7 Destination Host Unreachable",
            "",
        ] {
            assert_eq!(answer(line), None, "{line}");
        }
    }
}
