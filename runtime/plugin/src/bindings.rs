//! The bindings generated from `wit/v0.1`: one module per world, with the types shared.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

pub(crate) mod backend {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "backend-plugin",
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
