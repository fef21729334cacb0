//! Bindings generated from `wit/v0.1`, with shared types.
//!
//! The interfaces of a world are looked up one by one, so the module `backend` serves all three
//! worlds of backends: `transform-plugin` has the interfaces of the other two.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

pub(crate) mod backend {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "transform-plugin",
    });
}

pub(crate) mod emitter {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "emitter-plugin",
        with: {
            "heddle:overlay/types": crate::bindings::backend::heddle::overlay::types,
            "heddle:overlay/log": crate::bindings::backend::heddle::overlay::log,
        },
    });
}
