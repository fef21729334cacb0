//! What surrounds an instance: WASI without anything in it, the log, and the limits.

use heddle_grant::Limits;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::backend::heddle::overlay::{log, types};
use crate::limits::Limiter;
use crate::voice::Voice;

/// The interface with which a guest could wait for the time to pass, as wasmtime's WASI names it.
const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

/// How many handles a guest may hold: of streams and the like, and of resources of its own. It needs a few.
const HANDLES: usize = 1000;

/// The most random bytes at a time. A key takes some tens.
const RANDOM: u64 = 64 << 10;

/// The host's side of one instance.
pub(crate) struct HostState {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: Limiter,
    voice: Voice,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) {
        self.voice.line(level, &message);
    }
}

/// A store for a fresh instance. Nothing of the outside is in it: no files, no environment, no arguments, no network.
pub(crate) fn store(engine: &Engine, limits: &Limits, voice: &Voice) -> Store<HostState> {
    let wasi = WasiCtx::builder()
        .stdout(voice.clone())
        .stderr(voice.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(RANDOM)
        .build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES);
    let state =
        HostState { wasi, table, limiter: Limiter::new(limits.memory), voice: voice.clone() };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.answer);
    store.set_max_component_handles(HANDLES);
    store.epoch_deadline_trap();
    store
}

/// Everything that a plugin may import. WASI is there because the languages' runtimes import it whether they need it
/// or not.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    // A guest that waits is not stopped by epochs, which only pass in its own code.
    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_CLOCK)?;
    for function in ["subscribe-duration", "subscribe-instant"] {
        clock.func_new(function, |_, _, _, _| {
            Err(wasmtime::Error::msg("a plugin cannot wait for time to pass"))
        })?;
    }
    linker.allow_shadowing(false);
    log::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
