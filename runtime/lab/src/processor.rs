//! Packets in the order in which they were sent.

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::Error;

/// Does something on one processor, with all threads and processes that it starts.
///
/// Packets between namespaces keep their order only there: Linux queues them by the processor that they were sent on
/// (`enqueue_to_backlog` in net/core/dev.c). On a busy machine a queue waits for its ksoftirqd, and a sender that has
/// moved to another processor meanwhile overtakes itself.
///
/// # Errors
///
/// [`Error::Io`] when the kernel refuses. What `work` returns is passed on.
pub fn on_one_processor<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let stay = || {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here)
    };
    std::thread::scope(|scope| match scope.spawn(|| stay().map(|()| work())).join() {
        Ok(result) => result.map_err(|errno| Error::io("staying on a processor")(errno.into())),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::thread::sched_getaffinity;

    use super::*;

    /// On how many processors whoever asks may be.
    fn here() -> u32 {
        sched_getaffinity(None).unwrap().count()
    }

    #[test]
    fn what_is_started_there_stays_there() {
        let before = here();
        let (thread, process) = on_one_processor(|| {
            let printed = Command::new("nproc").output().unwrap().stdout;
            let thread = std::thread::spawn(here).join().unwrap();
            (thread, String::from_utf8(printed).unwrap())
        })
        .unwrap();
        assert_eq!((thread, process.trim(), here()), (1, "1", before));
    }
}
