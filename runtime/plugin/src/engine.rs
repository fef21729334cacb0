//! The engine that runs native code, and the one place where code is trusted.

use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::settings;
use crate::ticker::{Ticker, TickerThread};

/// Tells native code of one wasmtime and its settings from that of another: part of a name in the cache, and asked of the
/// compiler. `heddle-compiler engine` prints it.
pub(crate) const FINGERPRINT: &str = env!("HEDDLE_ENGINE");

/// An engine with its clock. Cheap to clone; one is enough for a process.
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
    /// wasmtime itself refuses what another version, other settings or another processor made, but not what was
    /// forged: the bytes must come from a place that only we can write to.
    #[allow(unsafe_code, reason = "the bytes become machine code")]
    pub(crate) fn load(&self, native: TrustedCode<'_>) -> Result<Component, String> {
        // SAFETY: `deserialize` requires bytes that wasmtime's own compiler made and nobody changed since. A
        // `TrustedCode` is made of two things: this binary's own data, which our compiler made for the build script, and what
        // it has just made.
        unsafe { Component::deserialize(&self.0.engine, native.0) }
            .map_err(|error| format!("{error:#}"))
    }

    /// The same for code in a file, which is mapped: what is never called is never read.
    #[allow(unsafe_code, reason = "the file becomes machine code")]
    pub(crate) fn load_file(&self, native: TrustedFile<'_>) -> Result<Component, String> {
        // SAFETY: `deserialize_file` requires what `deserialize` does, for as long as the component lives, because the
        // file stays mapped. A `TrustedFile` is in a cache directory that was checked to belong to this user and to be
        // writable by nobody else. Only our own compiler's output is put there, and it is replaced by another file, never
        // written to.
        unsafe { Component::deserialize_file(&self.0.engine, native.0) }
            .map_err(|error| format!("{error:#}"))
    }
}

/// Native code from a place that only we can write to. See [`Runtime::load`].
#[derive(Clone, Copy)]
pub(crate) struct TrustedCode<'a>(&'a [u8]);

impl<'a> TrustedCode<'a> {
    /// Takes bytes at their word. Only [`embedded`](crate::embedded) may, and who has just compiled them.
    pub(crate) fn vouch(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

/// A file of native code that only we can write to. See [`Runtime::load_file`].
#[derive(Clone, Copy)]
pub(crate) struct TrustedFile<'a>(&'a Path);

impl<'a> TrustedFile<'a> {
    /// Takes a file at its word. Only [`cache`](crate::cache) may.
    pub(crate) fn vouch(path: &'a Path) -> Self {
        Self(path)
    }
}
