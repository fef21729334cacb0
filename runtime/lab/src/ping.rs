//! Pings that go on in the background and count what is lost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Namespace, wait_until};

/// How long an answer may take before its request counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has become of a [`PingStream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings {
    /// How many requests were answered.
    pub answered: usize,
    /// The numbers of those that were not, from the first on.
    pub lost: Vec<u64>,
    /// The longest time between a request and its answer.
    pub longest: Duration,
}

/// A ping again and again.
#[derive(Debug)]
pub struct PingStream {
    child: Child,
    interval: Duration,
    answered: Arc<Mutex<BTreeMap<u64, Duration>>>,
    reader: Option<JoinHandle<()>>,
}

impl PingStream {
    pub(crate) fn start(
        namespace: &Namespace,
        address: IpAddr,
        interval: Duration,
    ) -> Result<Self, Error> {
        let mut command = Command::new("ping");
        command.args(["-n", "-i", &interval.as_secs_f64().to_string(), &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = namespace.spawn(command)?;
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
        Ok(Self { child, interval, answered, reader: Some(reader) })
    }

    fn answered(&self) -> MutexGuard<'_, BTreeMap<u64, Duration>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest request that was answered.
    fn last(&self) -> u64 {
        self.answered().last_key_value().map_or(0, |(&number, _)| number)
    }

    /// Waits until so many more requests were answered.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when nothing like it happens within ten seconds.
    pub fn wait_answers(&self, count: usize) -> Result<(), Error> {
        let goal = self.answered().len() + count;
        wait_until(format!("{count} more answers to pings"), Duration::from_secs(10), || {
            let answers = self.answered().len();
            if answers >= goal { Ok(()) } else { Err(format!("{} to go", goal - answers)) }
        })
    }

    /// Ends it, a second after the last request that counts.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when ping has ended by itself.
    pub fn finish(mut self) -> Result<Pings, Error> {
        // Requests on their way get their answer; those sent meanwhile are beyond the last number looked at.
        let last = self.last();
        std::thread::sleep(PATIENCE / 2);
        let later = self.last();
        std::thread::sleep(PATIENCE / 2);
        let answered = self.answered().clone();
        // With nothing answered any more, the requests of the last second are lost. What was answered before may have
        // been read a little later.
        let last = match self.last() {
            latest if latest > later => last,
            _ => last + PATIENCE.div_duration_f64(self.interval) as u64,
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
            // A panic there would have been reported there.
            let _ = reader.join();
        }
        Ok(())
    }
}

impl Drop for PingStream {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number and the time in `64 bytes from 10.1.2.3: icmp_seq=7 ttl=62 time=0.1 ms`.
fn answer(line: &str) -> Option<(u16, Duration)> {
    if !line.contains(" bytes from ") {
        return None;
    }
    let after = |name| line.split_once(name)?.1.split(' ').next();
    let milliseconds: f64 = after("time=")?.parse().ok()?;
    let time = Duration::try_from_secs_f64(milliseconds / 1000.0).ok()?;
    Some((after("icmp_seq=")?.parse().ok()?, time))
}

/// The request that a sequence number stands for, the one nearest to `last`: after 65535 comes 0 (RFC 792 has 16 bits),
/// which at a hundred a second takes eleven minutes.
fn unwrapped(last: u64, number: u16) -> u64 {
    // The low bits of the difference, as a number with a sign.
    let step = number.wrapping_sub(last as u16) as i16;
    last.saturating_add_signed(step.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_for_longer_than_their_numbers_last() {
        assert_eq!(unwrapped(0, 1), 1);
        assert_eq!(unwrapped(65_535, 0), 65_536);
        assert_eq!(unwrapped(65_537, 65_535), 65_535);
        assert_eq!(unwrapped(3 * 65_536 - 2, 4), 3 * 65_536 + 4);
    }

    #[test]
    fn only_answers_count() {
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
