//! One connection.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::pool::Member;
use crate::respond::{answer, response};
use crate::{Hosts, Site};

/// The largest head of a request, in bytes. Browsers send a tenth of that.
const HEAD: usize = 8 << 10;

/// The most that is read ahead, in bytes: a head, and the beginning of another.
const READ_BUFFER: usize = 16 << 10;

/// The byte stream of a connection: TCP or a unix socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Has the kernel drop what the client has not taken yet, instead of keeping it for a client that does not read.
    fn abandon(&self);
}

impl Stream for TcpStream {
    fn abandon(&self) {
        // It fails only on a connection that is gone.
        let _ = self.set_zero_linger();
    }
}

impl Stream for UnixStream {
    // The kernel drops it with the client.
    fn abandon(&self) {}
}

/// Serves a connection until it ends, or until the pool has it closed.
pub(crate) async fn serve<T: Stream, S: Site>(
    stream: T,
    member: Arc<Member>,
    site: Arc<S>,
    hosts: Hosts,
    over_loopback: bool,
) {
    let watched = Watched { stream, member: member.clone() };
    let of_service = member.clone();
    let service = service_fn(move |request| {
        let (site, member) = (site.clone(), of_service.clone());
        member.asked();
        async move {
            let answer = answer(&*site, hosts, over_loopback, &request).await;
            member.answered(answer.body());
            Ok::<_, Infallible>(response(&*site, answer))
        }
    });
    let mut http = http1::Builder::new();
    // Queued, a body is written from where it is. Otherwise hyper would copy it for each client.
    http.writev(true).max_buf_size(READ_BUFFER).max_header_size(HEAD);
    let connection = http.serve_connection(TokioIo::new(watched), service);
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::trace!("http: connection ended: {error}");
            }
        }
        () = member.closed() => {}
    }
}

/// A stream that tells the pool of its progress.
struct Watched<T: Stream> {
    /// Dropped first: whoever waits for the place in the pool has the descriptor, too.
    stream: T,
    member: Arc<Member>,
}

impl<T: Stream> Watched<T> {
    fn progress(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.member.progressed();
        }
        written
    }
}

impl<T: Stream> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: Stream> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.progress(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.progress(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once everything that it has is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.member.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<T: Stream> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.member.is_closing() {
            self.stream.abandon();
        }
    }
}
