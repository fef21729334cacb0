//! The thread that talks to the kernel.
//!
//! Netlink calls block: they wait for the kernel's configuration lock and do the work inside the system call. So
//! they have a thread of their own, away from the async workers. It belongs to the network namespace of the thread
//! that started it, which matters for `/proc/sys/net`: the kernel shows the reader's namespace there.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::socket::Socket;

type Job = Box<dyn FnOnce(&mut Socket) + Send>;

/// A handle to the thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    pub(crate) fn start() -> io::Result<Self> {
        let mut socket = Socket::open()?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("netlink".into()).spawn(move || {
            for job in queue {
                job(&mut socket);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs a job after those before it. `None`: it was not done in time, or panicked. It is not called off.
    pub(crate) async fn run<T, F>(&self, job: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Socket) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |socket: &mut Socket| {
            // Nobody waits any more: the caller gave up.
            let _ = answer.send(job(socket));
        });
        self.jobs.send(job).ok()?;
        timeout(DEADLINE, answered).await.ok()?.ok()
    }
}
