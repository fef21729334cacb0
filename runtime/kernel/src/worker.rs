//! The thread that talks to the kernel.
//!
//! Netlink calls block: they wait for the kernel's configuration lock and do the work inside the
//! system call. A dedicated thread keeps them off the async workers. It belongs to the network
//! namespace of the thread that started it, which matters for `/proc/sys/net`: the kernel shows the
//! reader's namespace there.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::socket::Socket;

type Job = Box<dyn FnOnce(&mut Socket) + Send>;

/// A handle to the thread, which exits when the last handle is dropped.
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

    /// Runs a job after all earlier ones. Returns `None` if it took too long or panicked; a job
    /// that took too long is not cancelled.
    pub(crate) async fn run<T, F>(&self, job: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Socket) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |socket: &mut Socket| {
            // This fails if the caller has stopped waiting.
            let _ = answer.send(job(socket));
        });
        self.jobs.send(job).ok()?;
        timeout(DEADLINE, answered).await.ok()?.ok()
    }
}
