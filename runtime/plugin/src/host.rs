//! The host's side of an instance: WASI without any resources, the log, and the limits.

use heddle_grant::Limits;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::backend::heddle::overlay::{log, types};
use crate::guest_output::GuestOutput;
use crate::limits::Limiter;

/// The interface with which a guest could wait for time to pass, as wasmtime's WASI names it.
const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

/// Maximum number of handles that a guest may hold, of streams and the like as well as of resources
/// of its own. It needs a few.
const HANDLES: usize = 1000;

/// Maximum number of random bytes in one request. A key takes a few dozen.
const RANDOM: u64 = 64 << 10;

/// The host's side of one instance.
pub(crate) struct HostState {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: Limiter,
    guest_output: GuestOutput,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) {
        self.guest_output.line(level, &message);
    }
}

/// Returns a store for a fresh instance. It gives no access to the outside: no files, no
/// environment, no arguments, no network.
pub(crate) fn store(
    engine: &Engine,
    limits: &Limits,
    guest_output: &GuestOutput,
) -> Store<HostState> {
    let wasi = WasiCtx::builder()
        .stdout(guest_output.clone())
        .stderr(guest_output.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(RANDOM)
        .build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES);
    let state = HostState {
        wasi,
        table,
        limiter: Limiter::new(limits.memory),
        guest_output: guest_output.clone(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.answer);
    store.set_max_component_handles(HANDLES);
    store.epoch_deadline_trap();
    store
}

/// Returns a linker with everything that a plugin may import. WASI is included because the
/// languages' runtimes import it whether they need it or not.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    // Epoch interruption does not stop a guest that waits, because epochs are only checked in the
    // guest's own code.
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
