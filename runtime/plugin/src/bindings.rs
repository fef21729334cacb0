//! The bindings generated from `wit/v0.1`, with the types shared.
//!
//! A world's interfaces are looked up one by one, so `backend` serves the three worlds of backends: that of
//! `transform-plugin` has the interfaces of the other two.
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
