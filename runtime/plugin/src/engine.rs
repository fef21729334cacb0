//! The engine that runs native code, and the only module in which code becomes trusted.

use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::settings;
use crate::ticker::{Ticker, TickerThread};

/// Fingerprint that tells native code of one wasmtime version and its settings from that of
/// another. Part of file names in the cache, and passed to the compiler. `heddle-compiler engine`
/// prints it.
pub(crate) const FINGERPRINT: &str = env!("HEDDLE_ENGINE");

/// An engine with its epoch ticker. Cheap to clone; a process needs only one.
#[derive(Clone)]
pub(crate) struct Runtime(Arc<Inner>);

struct Inner {
    engine: Engine,
    ticker: TickerThread,
}

impl Runtime {
    pub(crate) fn new() -> Result<Self, String> {
        let engine = Engine::new(&settings::settings()).map_err(|error| format!("{error:#}"))?;
        let ticker = Ticker::start(&engine).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(Inner { engine, ticker })))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        self.0.ticker.ticker()
    }

    /// Loads code that was compiled earlier.
    ///
    /// wasmtime itself rejects code of another version, other settings or another processor, but
    /// not forged code: the bytes must come from a place that only we can write to.
    #[allow(unsafe_code, reason = "the bytes become machine code")]
    pub(crate) fn load(&self, native: TrustedCode<'_>) -> Result<Component, String> {
        // SAFETY: `deserialize` requires bytes that wasmtime's own compiler produced and that
        // nobody modified since. A `TrustedCode` is one of two things: this binary's own data,
        // which our compiler produced for the build script, or what it has just produced.
        unsafe { Component::deserialize(&self.0.engine, native.0) }
            .map_err(|error| format!("{error:#}"))
    }

    /// Loads code like [`load`](Self::load) from a file, which is mapped: code that is never called
    /// is never read.
    #[allow(unsafe_code, reason = "the file becomes machine code")]
    pub(crate) fn load_file(&self, native: TrustedFile<'_>) -> Result<Component, String> {
        // SAFETY: `deserialize_file` requires what `deserialize` does, for as long as the component
        // lives, because the file stays mapped. A `TrustedFile` is in a cache directory that was
        // checked to belong to this user and to be writable by nobody else. Only our own compiler's
        // output is put there, and it is replaced by another file, never written to.
        unsafe { Component::deserialize_file(&self.0.engine, native.0) }
            .map_err(|error| format!("{error:#}"))
    }
}

/// Native code from a place that only we can write to. See [`Runtime::load`].
#[derive(Clone, Copy)]
pub(crate) struct TrustedCode<'a>(&'a [u8]);

impl<'a> TrustedCode<'a> {
    /// Marks bytes as trusted. Only for [`embedded`](crate::embedded) code and freshly compiled
    /// code.
    pub(crate) fn vouch(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

/// A file of native code that only we can write to. See [`Runtime::load_file`].
#[derive(Clone, Copy)]
pub(crate) struct TrustedFile<'a>(&'a Path);

impl<'a> TrustedFile<'a> {
    /// Marks a file as trusted. Only for [`cache`](crate::cache).
    pub(crate) fn vouch(path: &'a Path) -> Self {
        Self(path)
    }
}
