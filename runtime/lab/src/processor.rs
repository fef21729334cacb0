//! Keeps packets in the order in which they were sent.

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::Error;

/// Runs a closure on one processor, with all threads and processes that it starts.
///
/// Only then do packets between namespaces keep their order: Linux queues them by the processor
/// that sent them (`enqueue_to_backlog` in net/core/dev.c). On a busy machine a queue waits for its
/// ksoftirqd, and the packets of a sender that has moved to another processor meanwhile overtake
/// earlier ones.
///
/// # Errors
///
/// [`Error::Io`] if the kernel refuses. The result of `work` is passed on.
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

    /// Returns the number of processors on which the caller may run.
    fn here() -> u32 {
        sched_getaffinity(None).unwrap().count()
    }

    #[test]
    fn child_processes_stay_on_the_processor() {
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
