//! Stamps, which detect that a file has changed since it was read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Upper bound for the granularity of the kernel's file timestamps: their clock ticks at least a
/// hundred times a second.
const TICK: Duration = Duration::from_millis(20);

/// A file's identity and the times of its last changes. The kernel sets the time of change (ctime)
/// whenever anything about a file changes, and nobody can set it to a chosen value: two equal
/// stamps mean one file with the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970, as in `changed`.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns true if any change from `now` on yields another stamp. Two changes within one tick
    /// of the clock could have the same time.
    pub(crate) fn settled(&self, now: SystemTime) -> bool {
        let (seconds, nanos) = self.changed;
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(changed).is_ok_and(|age| age >= TICK)
    }

    /// Waits until the stamp is settled, if the file was changed just now.
    #[expect(
        clippy::disallowed_methods,
        reason = "for a few milliseconds, on a thread that compiles"
    )]
    pub(crate) fn wait_until_settled(&self) {
        if !self.settled(SystemTime::now()) {
            std::thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
        let (seconds, nanoseconds) = (seconds.try_into().unwrap(), nanoseconds.try_into().unwrap());
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }

    #[test]
    fn stamp_that_settled_differs_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let stamp = || Stamp::of(&fs::metadata(&path).unwrap());
        fs::write(&path, "one").unwrap();
        let one = stamp();
        one.wait_until_settled();
        assert!(one.settled(SystemTime::now()));
        assert_eq!(stamp(), one);
        fs::write(&path, "two").unwrap();
        assert_ne!(stamp(), one);
        // Setting the time of modification back does not set the time of change back.
        let before = time(one.modified);
        fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        assert_eq!(stamp().modified, one.modified);
        assert_ne!(stamp(), one);
    }

    #[test]
    fn stamp_recent_or_in_the_future_is_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        let changed = time(stamp.changed);
        assert!(!stamp.settled(changed + TICK / 2));
        assert!(!stamp.settled(changed - Duration::from_secs(1)));
        assert!(stamp.settled(changed + TICK));
    }
}
